"""What a service of EBSeg-tiny imports, by name: seconds would tell how busy a machine is."""

import os
import sys
from pathlib import Path

import httpx

from tests.e2e.processes import served

ROOT = Path(__file__).parents[2]
# each takes about as long to import as all of EBSeg beside torch, or longer
HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "timm", "open_clip", "transformers")
OTHERS = ("scipy", "tensorboard", "boto3", "s3fs", "matplotlib", "pandas")
SERVE = """
import sys, ebseg
code = ebseg.main(["serve", "--port", "0"])
open(sys.argv[1], "w").write(" ".join(sys.modules))
sys.exit(code)
"""


def test_a_service_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = tmp_path / "modules.txt"
    words = [sys.executable, "-c", SERVE, str(modules)]
    with served(words, dict(os.environ), ROOT, tmp_path / "server.log") as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
    imported = set(modules.read_text(encoding="utf-8").split())
    assert {"torch", "fastapi", "model.network.build"} <= imported
    assert imported & {*HEAVY, *OTHERS} == set()
