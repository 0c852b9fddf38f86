"""The packages import each other in three directions only, and nothing happens when they are imported."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imported import imported
from tests.waiting import WAIT

ROOT = Path(__file__).parents[1]
CLIENT = "ebseg_client"
PACKAGES = ("model", "service", "training", CLIENT)
ARROWS = {("service", "model"), ("training", "model"), ("service", CLIENT)}
FOLDERS = ("model", "service", "training", f"client/{CLIENT}")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
CLIENT_NEEDS = {"httpx", "numpy", "PIL"}  # installing it brings nothing else
CLIENT_ASKED = {"supervision"}  # imported where a caller asks for its types, never with the module
IMPORT = ast.Import | ast.ImportFrom
SERVING = {"fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings", "prometheus_client", "redis"}
# Settings are pydantic's; commands that talk to a service take their key where that is not installed.
# A Kubernetes Indexed Job tells each pod its share by a variable; Ray is told by one to send no statistics.
ENVIRONMENT_READERS = {
    Path("service/settings.py"),
    Path("service/commands/remote.py"),
    Path("service/commands/batch/plan.py"),
    Path("service/batch/ray_run.py"),
}


def wrong_arrows(code: str, path: Path) -> set[str]:
    own, package = path.parts[0], ".".join(path.parent.parts)
    closed = {*PACKAGES, "ebseg", "tests", "<computed>"} - {
        own,
        *(to for start, to in ARROWS if start == own),
    }
    if own != "service":
        closed |= SERVING
    targets = {target: target.split(".")[0] for target in imported(ast.parse(code), package)}
    if own == CLIENT:
        top_level = ast.Module([node for node in ast.parse(code).body if isinstance(node, IMPORT)], [])
        asked = CLIENT_ASKED - set(imported(top_level, package))
        closed |= {*targets.values()} - {own, *CLIENT_NEEDS, *asked, *sys.stdlib_module_names}
    return {target for target, top in targets.items() if top in closed}


def import_effects(tree: ast.Module) -> Iterator[int]:
    """Lines at a module's top level that do more than define."""
    doing = {"basicConfig", "getenv", "is_available", "open", "read_bytes", "read_text", "run"}
    actions = (ast.For, ast.While, ast.With, ast.Try, ast.Delete, ast.Assert, ast.Raise)
    for statement in tree.body:
        bare = isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant)
        if bare or isinstance(statement, actions):
            yield statement.lineno
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from (node.lineno for node in names(statement) if name_of(node) in doing)


def environment_reads(tree: ast.AST) -> Iterator[int]:
    reading = {"environ", "environb", "getenv", "getenvb", "load_dotenv"}
    yield from (node.lineno for node in names(tree) if name_of(node) in reading)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and reading & {alias.name for alias in node.names}:
            yield node.lineno


def names(tree: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute))


def name_of(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_source_keeps_the_rules(path: Path) -> None:
    code, place = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
    tree = ast.parse(code)
    assert wrong_arrows(code, Path(str(place).removeprefix("client/"))) == set()
    assert list(import_effects(tree)) == []
    if place not in ENVIRONMENT_READERS:
        assert list(environment_reads(tree)) == []


def test_all_packages_are_looked_at() -> None:
    found = {label(path).removeprefix("client/").partition("/")[0] for path in SOURCES}
    assert found == set(PACKAGES)


@pytest.mark.parametrize(
    ("path", "code", "wrong"),
    [
        ("model/a.py", "import service.app", {"service.app"}),
        ("model/a.py", "def f():\n    from training import loop", {"training", "training.loop"}),
        ("model/a.py", "from ..service import app", {"service", "service.app"}),
        ("model/deep/a.py", "from ...service import app", {"service", "service.app"}),
        ("model/a.py", "from . import layers\nfrom .layers import resize\nimport model.layers", set()),
        ("model/a.py", "import importlib\nimportlib.import_module('service.app')", {"service.app"}),
        ("model/a.py", "importlib.import_module(f'model.{name}')", set()),
        ("model/a.py", "importlib.import_module(f'service.{name}')", {"service."}),
        ("model/a.py", "importlib.import_module(f'{name}.service')", {"<computed>"}),
        ("model/a.py", "__import__(name)", {"<computed>"}),
        ("model/a.py", "import fastapi", {"fastapi"}),
        ("training/a.py", "import pydantic.types", {"pydantic.types"}),
        ("service/a.py", "import model, fastapi", set()),
        ("service/a.py", "if TYPE_CHECKING:\n    import training.loop", {"training.loop"}),
        ("service/routes/a.py", "import ebseg", {"ebseg"}),
        ("service/a.py", "from model import ebseg\nimport model.ebseg", set()),
        ("training/a.py", "import model", set()),
        ("training/a.py", "from ebseg_client import Retry", {"ebseg_client", "ebseg_client.Retry"}),
        ("model/a.py", "import ebseg_client.labels", {"ebseg_client.labels"}),
        ("service/a.py", "from ebseg_client.parallel import in_order", set()),
        ("ebseg_client/a.py", "import json, httpx, numpy.typing\nfrom PIL import Image", set()),
        ("ebseg_client/a.py", "from ebseg_client import errors\nfrom . import labels", set()),
        ("ebseg_client/a.py", "import service.schemas", {"service.schemas"}),
        ("ebseg_client/a.py", "import rich.console", {"rich.console"}),
        ("ebseg_client/a.py", "def f():\n    import torch", {"torch"}),
        ("training/a.py", "import tests.helpers", {"tests.helpers"}),
    ],
)
def test_arrow_check_sees(path: str, code: str, wrong: set[str]) -> None:
    assert wrong_arrows(code, Path(path)) == wrong


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ('"""Text."""\nimport os\nX = 3\nLOG = logging.getLogger(__name__)', []),
        ("print(3)", [1]),
        ("X = open('f')", [1]),
        ("X = 1\nDEVICE = torch.cuda.is_available()", [2]),
        ("X = Path('f').read_text()", [1]),
        ("for x in y:\n    pass", [1]),
        ("def f():\n    print(3)", []),
        ("try:\n    import a\nexcept ImportError:\n    a = None", [1]),
    ],
)
def test_effect_check_sees(code: str, lines: list[int]) -> None:
    assert list(import_effects(ast.parse(code))) == lines


@pytest.mark.parametrize(
    "code", ["import os\nos.environ['A']", "from os import getenv", "import os\nos.getenv('A')"]
)
def test_environment_check_sees(code: str) -> None:
    assert len(list(environment_reads(ast.parse(code)))) == 1


def test_command_line_is_built_without_heavy_packages() -> None:
    """`ebseg --help` would take seconds otherwise."""
    code = (
        "import sys, ebseg; ebseg.build_parser().format_help();"
        "print(*sorted({'torch', 'numpy', 'fastapi', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=True)
    assert found.stdout.split() == []
    assert found.stderr == ""


@pytest.mark.parametrize(
    "module",
    [
        "service.schemas.segment",
        "service.batch.run",
        "service.commands.segment.command",
        "service.commands.segment.remote",
    ],
)
def test_what_needs_no_model_imports_no_torch(module: str) -> None:
    """It takes seconds and 500 MB, which the process beside a run's workers can do without."""
    command = [sys.executable, "-c", f"import sys, {module}; print('torch' in sys.modules)"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=True)
    assert found.stdout.split() == ["False"]
