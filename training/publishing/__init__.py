"""A run (`finished_run.py`) to the next version.

`publish.py`; `quality_gate.py`: what it must score; `stores.py`, `hub_store.py`: where versions go.
"""
