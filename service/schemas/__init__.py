"""Documents that go in and out.

`segment.py` with `classes.py`, `balance.py`, `masks.py`, `regions.py` and `lists.py`, `problem.py`,
`json_request.py`, `image_task.py`, `models.py`, `vocabularies.py`, `inference_protocol.py`.
"""
