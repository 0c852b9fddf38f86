"""Files of other programs to checkpoint folders.

`importing.py` over `fitting.py`, `account.py` and `misfits.py`; `official_names.py`: what the official code
calls them; `torch_file.py`, `torch_archive.py`, `stored_tensors.py`, `pickle_machine.py`: such files read
as data; `known.py`, `cards.py`: the authors' checkpoints.
"""
