"""open_clip's modules one by one; `utils.py` here goes before open_clip's own."""

from model.network.libraries import folders

__path__ = [*__path__, *folders("open_clip")]
