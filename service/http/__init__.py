"""What stands between a socket and a route.

`edge.py`: uvicorn's protocol with limits, over `connections.py`, `turns.py`, `one_write.py` and
`taking.py`; `arrival.py`; `body_limits.py`, `middleware.py`, `direct.py`, `auth.py` with `api_key.py`,
`body.py`, `parsed_request.py`, `parsed_several.py`, `parsed_task.py`, `multipart.py`, `form_fields.py`,
`negotiate.py`; errors as answers (`problems.py`, `inference_errors.py`); what /docs shows (`openapi.py`,
`problem_examples.py`).
"""
