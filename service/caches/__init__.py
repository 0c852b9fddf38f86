"""What is kept of text embeddings and predictions.

`text_cache.py` over `redis_store.py` (`redis_link.py`, `breaker.py`, `write_behind.py`, `cache_values.py`);
`prediction_cache.py`; `recent.py`: what both keep, within a number of bytes.
"""
