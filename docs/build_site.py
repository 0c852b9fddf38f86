"""Builds the documents as a site in out/site, and llms.txt, a list of all pages for programs, beside them.

    python docs/build_site.py

The pages are laid out as they lie in the repository, so that links between them hold both there and on the
site, and one more is made of the code: settings, metrics, errors. A link that leads nowhere, and a page that
no menu has, end the build.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from service.http.problems import KINDS
from service.observability.metrics import Metrics
from service.options import OPTIONS, SECTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE = ROOT / "out" / "documents", ROOT / "out" / "site"
FOLDERS = (".", "docs", "client", "samples")
PICTURES = (".png", ".jpg", ".svg")
REFERENCE = Path("docs/reference.md")
# The same in several languages: a name in bold on a line of its own before each block.
LANGUAGES = re.compile(r"(?:^\*\*[\w ]+\*\*\n\n```\w+\n(?:.*\n)*?```\n\n?){2,}", re.MULTILINE)
LANGUAGE = re.compile(r"^\*\*([\w ]+)\*\*\n\n(```\w+\n(?:.*\n)*?```\n)", re.MULTILINE)


def lay_out(pages: Path) -> list[Path]:
    """Copies every page and picture of the documents to a folder; the pages, as paths in it."""
    shutil.rmtree(pages, ignore_errors=True)
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in (".md", *PICTURES) or path.name in ("LICENSE", "tour.ipynb"):
                target = pages / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix == ".md":
                    target.write_text(tabbed(path.read_text(encoding="utf-8")), encoding="utf-8")
                    found.append(target.relative_to(pages))
                else:
                    shutil.copyfile(path, target)
    return found


def tabbed(page: str) -> str:
    """A page whose blocks of the same in several languages are tabs."""

    def tabs(blocks: re.Match[str]) -> str:
        found = LANGUAGE.findall(blocks[0])
        return "".join(f'=== "{name}"\n\n{indented(block)}\n' for name, block in found)

    return LANGUAGES.sub(tabs, page)


def indented(block: str) -> str:
    """A block as a part of what stands before it."""
    return "".join(f"    {line}\n" if line else "\n" for line in block.splitlines())


def reference() -> str:
    """A page of all settings, in the sections of `ebseg serve --help`, all metrics and all errors."""
    lines = [
        "# Settings, metrics, errors",
        "",
        "What `ebseg serve --help`, `/metrics` and the error documents say.",
        "",
        "## Settings",
    ]
    titles = {first: title for title, first in SECTIONS.items()}
    for name, text in OPTIONS.items():
        if name in titles:
            heading = titles[name][0].upper() + titles[name][1:]
            lines += ["", f"### {heading}", "", "| setting | meaning |", "|---|---|"]
        lines.append(f"| `{name}` | {text.replace('|', chr(92) + '|')} |")
    lines += ["", "## Metrics", "", "| metric | kind | what |", "|---|---|---|"]
    for metric in Metrics().registry.collect():
        ending = "_total" if metric.type == "counter" else ""
        lines.append(f"| `{metric.name}{ending}` | {metric.type} | {metric.documentation} |")
    lines += ["", "## Errors", "", "| status | type | title |", "|---|---|---|"]
    kinds = {(kind.status, kind.slug, kind.title) for kind in KINDS.values()}
    lines += [f"| {status} | `{slug}` | {title} |" for status, slug, title in sorted(kinds)]
    return "\n".join(lines) + "\n"


def summary(text: str) -> tuple[str, str]:
    """A page's heading, and its first paragraph as plain text on one line."""
    (heading,) = re.findall(r"^# (.+)$", text, re.MULTILINE)[:1]
    body = text.split(f"# {heading}", 1)[1]
    paragraphs = [part for part in re.split(r"\n\s*\n", body) if re.match(r"\s*[\w*`\[]", part)]
    plain = re.sub(r"\[([^\]]+)\]\([^)]*\)|[*`]", r"\1", " ".join(paragraphs[0].split()))
    return heading, plain


def llms(pages: Path, names: list[Path]) -> str:
    """The list as llmstxt.org describes it: a heading, a quoted summary, links with what they hold."""
    title, about = summary((pages / "README.md").read_text(encoding="utf-8"))
    lines = [f"# {title}", "", f"> {about}", "", "## Documents", ""]
    for name in names:
        if name != Path("README.md"):
            heading, first = summary((pages / name).read_text(encoding="utf-8"))
            lines.append(f"- [{heading}]({name.as_posix()}): {first}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the command line; its exit code."""
    names = lay_out(PAGES)
    (PAGES / REFERENCE).write_text(reference(), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file"]
    code = subprocess.run([*command, str(ROOT / "mkdocs.yml")], cwd=ROOT, check=False).returncode
    if code:
        return code
    for name in names:  # what llms.txt leads to
        shutil.copyfile(ROOT / name, SITE / name)
    shutil.copyfile(PAGES / REFERENCE, SITE / REFERENCE)
    names.append(REFERENCE)
    (SITE / "llms.txt").write_text(llms(SITE, names), encoding="utf-8")
    print(f"{len(names)} pages in out/site; `python -m http.server --directory out/site` shows them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
