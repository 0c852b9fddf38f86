"""Offline runs.

`segmenter.py`: `BatchSegmenter`, rows in and rows out (`request.py`, `rows.py`, `columns.py`,
`reading.py`); `plan.py`, `listing.py`, `seen.py`: what a run is, and its pictures; `run.py`, `worker.py`,
`remote.py`, `ray_run.py`: shards to processes, a service or Ray; `deaths.py`: when those die; `sinks.py`,
`place.py`: where rows go; `examples.py`, `summary.py`, `finish.py`, `estimate.py`, `progress.py`: what is
shown.
"""
