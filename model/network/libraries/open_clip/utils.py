"""What open_clip's transformer takes from its own `utils`, which imports torchvision for other networks.

A name that is not here is looked up in `open_clip.utils` itself: right at any rate, but as slow as that is.
"""

import importlib
from collections.abc import Iterable
from typing import Any


def to_2tuple(value: Any) -> Any:
    """A number twice; rows and columns as they are."""
    return value if isinstance(value, Iterable) else (value, value)


def feature_take_indices(*args: Any, **kwargs: Any) -> Any:
    """open_clip's own, which only its `forward_intermediates` asks for."""
    from open_clip.utils import feature_take_indices as theirs

    return theirs(*args, **kwargs)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # the import system asks for some of these
        raise AttributeError(name)
    return getattr(importlib.import_module("open_clip.utils"), name)
