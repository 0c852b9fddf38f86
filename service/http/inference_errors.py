"""Errors as the Open Inference Protocol has them: `{"error": "what is wrong"}`."""

import json

from starlette.responses import Response
from starlette.types import Scope

from service.http.problems import problem, problem_response

MOST_PROBLEMS = 5  # wrong fields that an error tells of


def speaks_protocol(scope: Scope) -> bool:
    """Whether a request's path is the protocol's, and its errors are to be in the protocol's form."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == "/v2" or path.startswith("/v2/")


def error_response(error: Exception, request_id: str) -> Response:
    """The answer to an error: status and headers of the problem document, and its words in one string."""
    document = problem(error, request_id)
    text = document["detail"]
    if fields := document.get("errors"):
        lines = [f"{field['field']}: {field['message']}" for field in fields[:MOST_PROBLEMS]]
        text = "; ".join([*lines, *(["and more"] if len(fields) > MOST_PROBLEMS else [])])
    plain = problem_response(error, request_id)
    headers = {name: value for name, value in plain.headers.items() if not name.startswith("content-")}
    return Response(json.dumps({"error": text}), plain.status_code, headers, "application/json")
