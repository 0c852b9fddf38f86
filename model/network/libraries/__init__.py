"""Components of other packages, without all that those packages import with them.

`import open_clip` takes more than twice the time of `import torch`: data sets, image models and download code
that no part of EBSeg uses. A package's `__path__` says where its modules are found. The packages in here
name the folders of the installed ones, so a module of theirs is imported alone, under a name of its own:
`model.network.libraries.open_clip.transformer` is open_clip's file transformer.py. What somebody else
imports as `open_clip` stays as it is. A module that is no longer where it was is a ModuleNotFoundError.
"""

from importlib.util import find_spec
from pathlib import Path


def folders(package: str, *inside: str) -> list[str]:
    """Where an installed package keeps its modules; it is not imported.

    Args:
        package: its name.
        inside: a package inside it, one name a level.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return [str(Path(folder, *inside)) for folder in spec.submodule_search_locations]
