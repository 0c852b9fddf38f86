"""Files take another's place in one function, which waits for the disk and leaves nothing behind."""

import ast
from collections.abc import Iterator

import pytest

from tests.test_structure import ROOT, label

FOLDERS = ("model", "service", "training", "requirements", "client", "samples")
# Where files or folders are renamed by hand, how often, and why.
BY_HAND = {
    "model/storage/files.py": 2,  # the function, and the one for folders
    "model/storage/work_folder.py": 1,  # a lock that appears locked
    "model/fetch/web.py": 1,  # what came in parts over many runs, its digest known
    "model/fetch/hub.py": 1,  # the same
    "model/fetch/pull.py": 1,  # a folder that must not take a filled one's place
    "training/publishing/stores.py": 1,  # the same, to the number that was reserved
    "training/run/artifacts.py": 2,  # a folder in an older one's place
    "requirements/lock.py": 1,  # runs before anything of the project is installed
}


def renames(tree: ast.AST) -> Iterator[int]:
    """Lines with os.replace, os.rename, shutil.move or the methods of paths; not str.replace or others."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else None
        name, arguments = node.func.attr, len(node.args)
        by_module = owner in ("os", "shutil") and name in ("replace", "rename", "renames", "move")
        by_path = name in ("replace", "rename") and arguments == 1 and not node.keywords
        if by_module or by_path:
            yield node.lineno


def test_files_are_replaced_in_one_place() -> None:
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if lines := list(renames(ast.parse(path.read_text(encoding="utf-8")))):
                found[label(path)] = len(lines)
    assert found == BY_HAND


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("os.replace(a, b)", 1),
        ("os.rename(a, b)", 1),
        ("shutil.move(a, b)", 1),
        ("partial.replace(path)", 1),
        ("(folder / name).rename(path)", 1),
        ("text.replace('a', 'b')", 0),
        ("when.replace(tzinfo=None)", 0),
        ("dataclasses.replace(card, name=3)", 0),
    ],
)
def test_renames_are_seen(code: str, count: int) -> None:
    assert len(list(renames(ast.parse(code)))) == count
