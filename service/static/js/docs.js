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

/** What stands in the query beside an image as the body is no part of a form: it is shown with such a body alone. */
const queryOfImages = ({ React }) => ({
  wrapComponents: {
    parameterRow: (Row, { oas3Selectors }) => (row) => {
      const ofImages = row.rawParam.get("x-body-is-the-image");
      const chosen = ofImages && oas3Selectors.requestContentType(...row.pathMethod);
      return ofImages && !/^(image|application\/octet)/.test(chosen) ? null : React.createElement(Row, row);
    },
  },
});

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  presets: [window.SwaggerUIBundle.presets.apis],
  plugins: [beginAnew, fileField, queryOfImages],
});
