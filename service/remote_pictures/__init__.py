"""Pictures by URL.

`fetcher.py`, over `web.py` and `bucket.py`; `addresses.py`: which URLs and which addresses may be asked.
"""
