"""Builds the documents as a site in out/site, and llms.txt, a list of all pages for programs, beside them.

    python docs/build_site.py

The pages are laid out as they lie in the repository, so that links between them hold both there and on the
site. A link that leads nowhere, and a page that no menu has, end the build.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE = ROOT / "out" / "documents", ROOT / "out" / "site"
FOLDERS = (".", "docs", "client", "samples")
PICTURES = (".png", ".jpg", ".svg")


def lay_out(pages: Path) -> list[Path]:
    """Copies every page and picture of the documents to a folder; the pages, as paths in it."""
    shutil.rmtree(pages, ignore_errors=True)
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in (".md", *PICTURES) or path.name == "LICENSE":
                target = pages / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                if path.suffix == ".md":
                    found.append(target.relative_to(pages))
    return found


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
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file"]
    code = subprocess.run([*command, str(ROOT / "mkdocs.yml")], cwd=ROOT, check=False).returncode
    if code:
        return code
    (SITE / "llms.txt").write_text(llms(PAGES, names), encoding="utf-8")
    for name in names:  # what llms.txt leads to
        shutil.copyfile(PAGES / name, SITE / name)
    print(f"{len(names)} pages in out/site; `python -m http.server --directory out/site` shows them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
