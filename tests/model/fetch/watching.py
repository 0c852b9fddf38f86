"""What a fetcher tells while it works."""

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants

from model.fetch.hub import HubFetcher
from model.fetch.sources import HubFile, WebFile
from model.fetch.transfer import Patience
from model.fetch.web import WebFetcher

REPOSITORY, FILE = "slonetime/EBSeg", "EBSeg_base.pth"
QUICK = Patience(failures=3, first_wait=0.01, longest_wait=0.02, longest_pause=2.5)


@dataclass
class Watch:
    """Keeps the lines and steps."""

    lines: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)

    def notify(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, step: str, done: int, total: int) -> None:
        self.steps.append((step, done, total))

    def of_hub(
        self,
        revision: str = "main",
        path: str = FILE,
        repository: str = REPOSITORY,
        patience: Patience = QUICK,
    ) -> HubFetcher:
        file = HubFile(repository, revision, path)
        return HubFetcher(file, notify=self.notify, progress=self.progress, patience=patience)

    def of_web(self, url: str, pinned: str | None = None) -> WebFetcher:
        return WebFetcher(WebFile(url), pinned, notify=self.notify, progress=self.progress, patience=QUICK)


def fetched(fetcher: HubFetcher | WebFetcher) -> tuple[bytes, int]:
    """The content, and how many bytes came for it."""
    with fetcher.fetched(fetcher.find()) as file:
        return file.path.read_bytes(), file.received


def blobs() -> dict[str, int]:
    """Names and sizes of what lies in the hub's cache."""
    folder = Path(constants.HF_HUB_CACHE) / "models--slonetime--EBSeg" / "blobs"
    return {path.name: path.stat().st_size for path in folder.iterdir()} if folder.exists() else {}
