"""A model in the user's own process.

`notebook.py` (`ebseg.load`), `result.py`, `model.py`; `picture_result.py`: what both it and `ebseg segment`
give.
"""
