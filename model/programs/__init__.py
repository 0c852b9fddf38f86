"""The network as a file that runs without this package.

`formats.py`: which there are; `making.py`: the files; `runtimes.py`: who runs them; `writing.py`: written,
compared and kept.
"""
