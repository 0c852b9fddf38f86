"""Class lists that users store.

`catalog.py`; `store.py` keeps them in the process, `shared_store.py` in Redis; `stored_vocabulary.py`: one
list.
"""
