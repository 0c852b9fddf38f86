// The interface's own page: Swagger UI over openapi.json.

/** What was filled into a form is no JSON document: another content type begins with its own example. */
const beginAnew = () => ({
  statePlugins: {
    oas3: {
      wrapActions: {
        setRequestContentType: (original, { oas3Actions }) => (chosen) => {
          oas3Actions.setRequestBodyValue({ value: undefined, pathMethod: chosen.pathMethod });
          return original(chosen);
        },
      },
    },
  },
});

/** A file is a string's field; of lists of files Swagger UI asks for a field of their own, and complains of none. */
const fileField = ({ React }) => ({
  components: {
    JsonSchema_string_binary: (fields) => React.createElement(fields.getComponent("JsonSchema_string"), fields),
  },
});

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  presets: [window.SwaggerUIBundle.presets.apis],
  plugins: [beginAnew, fileField],
});
