"""One file a kind of route.

`segment.py`, `several.py`, `image_task.py`, `vocabularies.py`, `models.py`, `health.py`,
`inference_protocol.py`, `inference_repository.py`, `page.py`.
"""
