"""The project's documents, and what is in their fenced blocks."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it stands, its language, its text."""

    document: str
    language: str
    text: str


def documents() -> list[Path]:
    """Every markdown file that is part of the project."""
    below = (ROOT / "client" / "README.md", ROOT / "samples" / "README.md")
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *below]


def blocks() -> list[Block]:
    """All fenced blocks of all documents, those in lists too."""
    found = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for _, language, content in re.findall(r"^( *)```(.*)\n((?:.*\n)*?)^\1```$", text, re.MULTILINE):
            found.append(Block(str(path.relative_to(ROOT)), language, dedent(content)))
    return found


def commands() -> list[str]:
    """The commands of all `sh` blocks, each once, on one line, without remarks."""
    return list(dict.fromkeys(line for block in blocks() if block.language == "sh" for line in lines(block)))


def lines(block: Block) -> list[str]:
    """The commands of a block in order, each on one line, without remarks."""
    text = block.text.replace("\\\n", " ")
    whole = (" ".join(re.sub(r"(^|\s)#\s.*", "", line).split()) for line in text.splitlines())
    return [line for line in whole if line]


def section(document: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    text = (ROOT / document).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n{heading}\n")
    assert rest, f"{document} has no heading {heading!r}"
    return re.split(r"^#{2,} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(document: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the tables under a heading, without the tables' heads."""
    text = section(document, heading)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    rules = [index for index, row in enumerate(rows) if set("".join(row)) <= set("-|: ")]
    heads = {index - 1 for index in rules} | set(rules)
    return [[cell.strip() for cell in row] for index, row in enumerate(rows) if index not in heads]


def code_spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def tracked_files() -> list[str]:
    """Paths of the files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=WAIT
    )
    return [path for path in listed.stdout.split("\0") if path]
