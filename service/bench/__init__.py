"""What `ebseg bench service` measures.

`service.py` over `target.py`, by the load of `load.py` and `connection.py`; `instant.py`,
`litserve_server.py`, `limit.py`: what it is compared with; `process.py`: a server of its own, as the demo
and the tests start it; `requests.py`: whole requests; `pictures.py`, `cli.py`.
"""
