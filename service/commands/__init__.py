"""One module a command.

`serve.py`, `models.py`, `vocabularies.py`, `completion.py`; `segment/command.py`: what to do
(`segment/plan.py`), here (`segment/local.py`) or on a service (`segment/remote.py`), file by file
(`segment/files.py`); `flags.py`, `remote.py`, `tables.py`, `complaint.py`: what they share.
"""
