"""Connections to Redis, for caches, vocabularies and news alike.

`servers.py`: a server, a cluster, or servers that sentinels watch.
"""
