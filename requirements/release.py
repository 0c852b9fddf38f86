"""Holds a tag against the version that each distribution, the image and the chart name.

python -m requirements.release v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from requirements.layers import ROOT

# Where a version stands, and what stands before it.
PLACES = {
    "pyproject.toml": r'^version = "([^"]+)"$',
    "client/pyproject.toml": r'^version = "([^"]+)"$',
    "Dockerfile": r"^ARG VERSION=(\S+)$",
    "k8s/chart/Chart.yaml": r"^(?:version|appVersion): (\S+)$",
}


def versions(root: Path = ROOT) -> dict[str, set[str]]:
    """The versions that each file names."""
    return {
        name: set(re.findall(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name, pattern in PLACES.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; its exit code."""
    (tag,) = sys.argv[1:] if argv is None else argv
    wrong = {name: found for name, found in versions().items() if found != {tag.removeprefix("v")}}
    for name, found in wrong.items():
        print(f"{name} names {', '.join(sorted(found)) or 'no version'}, not {tag}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
