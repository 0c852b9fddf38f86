"""Versioned checkpoint folders.

`checkpoint.py` saves and loads, `manifest.py`, `verify.py`, `golden.py` and `files.py` are its parts;
`versions.py`: the versions of a model at any URL, `hub/`: on the Hugging Face hub; `serving_state.py`,
`serving_changes.py`, `steps_back.py`, `conditional.py`: which of them serves; `work_folder.py`: where a
version is prepared; `packaged.py`: the checkpoint that comes along.
"""
