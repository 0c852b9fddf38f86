"""Scores of Table 1 on disk, by everything that they depend on: what is interrupted goes on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.network.json_reading import read
from model.storage.files import replace_text
from training.data.layout import SegmentationFolder
from training.data.present import CLASSES_FILE
from training.errors import TrainingError
from training.evaluation.benchmarks import Benchmark, BenchmarkScore

SCHEMA = 1


def data_digest(folder: SegmentationFolder) -> str:
    """sha256 over the class list and the pictures' names, of a split."""
    digest = hashlib.sha256((folder.root / CLASSES_FILE).read_bytes())
    digest.update("".join(f"{name}\n" for name in folder.names).encode())
    return digest.hexdigest()


class KeptScores:
    """Scores on disk, by everything that they depend on.

    Raises:
        TrainingError: the file holds something else.
    """

    # what tells how it was called and spread over processes, and changes no score
    LOOSE = frozenset({"command", "threads", "processes", "source", "source sha256"})

    def __init__(self, path: Path, setting: Mapping[str, Any]):
        self._path = path
        relevant = {name: value for name, value in setting.items() if name not in self.LOOSE}
        self._key = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
        self._setting = setting
        self._entries = self._read()
        self._write()  # now, and not after hours, it shows whether the disk takes it

    def find(self, benchmark: Benchmark, folder: SegmentationFolder) -> BenchmarkScore | None:
        """A score of an earlier run with the same weights, data, settings and versions."""
        for entry in self._entries:
            same = (entry["key"], entry["benchmark"]) == (self._key, benchmark.name)
            if same and entry["score"]["data"] == data_digest(folder):
                return BenchmarkScore(**entry["score"])
        return None

    def add(self, benchmark: Benchmark, score: BenchmarkScore) -> None:
        """Keeps a score, through to the disk."""
        self._entries.append(
            {
                "key": self._key,
                "benchmark": benchmark.name,
                "score": asdict(score),
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "setting": dict(self._setting),
            }
        )
        self._write()

    def _read(self) -> list[dict[str, Any]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            entries: list[dict[str, Any]] = content["scores"]
            for entry in entries:
                read(BenchmarkScore, entry["score"], "score", ValueError), entry["key"], entry["benchmark"]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError):
            raise TrainingError(
                f"{self._path} holds no scores of ebseg reproduce: remove it, or name another file"
            ) from None
        return entries

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "scores": self._entries}, indent=1) + "\n"
        replace_text(self._path, text)
