"""`ebseg serve --workers N`: several processes that are one service.

`serve.py`: one or several; `family.py` forks and looks after them. `http_process.py` is a worker: `tunnel.py`
says what it answers, `remote_door.py` asks the engine's process for what it lacks. `engine_process.py` is
that one, with a `desk.py` for each worker and an `errand.py` for each picture. Between them: `link.py`
(calls, with `documents.py`, `errors.py`, `relay.py` for metrics) and shared memory (`arena.py` and
`blocks.py` for pictures, `counts.py` for what is reserved, `kept.py` for which predictions there are).
"""
