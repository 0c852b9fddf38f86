"""Prints what pyproject.toml asks for, without this repository's own: new sources then need no new layer.

Takes the extras as its one argument, with commas between. Reads the pyproject.toml of the working directory.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, dict[str, list[str]]], extras: list[str]) -> list[str]:
    """The requirements of the package and of some of its extras, each once.

    Raises:
        SystemExit: there is no such extra.
    """
    optional = project["optional-dependencies"]
    if unknown := sorted(set(extras) - set(optional)):
        raise SystemExit(f"no extra {', '.join(unknown)}; there are {', '.join(sorted(optional))}")
    found = list(project["dependencies"])
    for extra in extras:
        for requirement in optional[extra]:
            own = re.fullmatch(r"ebseg\[(.+)\]", requirement)
            if own:
                found += requirements({**project, "dependencies": []}, own[1].split(","))
            else:
                found.append(requirement)
    return [requirement for requirement in dict.fromkeys(found) if not requirement.startswith("ebseg-client")]


if __name__ == "__main__":
    document = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    print(*requirements(document["project"], [extra for extra in sys.argv[1].split(",") if extra]), sep="\n")
