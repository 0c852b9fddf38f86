"""Mean intersection over union of a model on a data set: all, trained and new classes.

One picture at a time, resized to the configured short side (640 for the released models), its label map
taken at the truth's own size.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.network.balance import Balance
from model.network.ebseg import EBSeg
from model.storage.checkpoint import LoadedCheckpoint
from model.vocabulary.classes import Vocabulary
from training.data.layout import SegmentationFolder
from training.evaluation.confusion_counts import CountPlan, Options, count, count_loaded
from training.evaluation.metrics import Confusion
from training.evaluation.pictures import save_contact_sheet
from training.progress import progress

CONTACT_SHEET = "contact-sheet.png"
MOST_CONFUSED = 10  # pairs that are reported
DEFAULTS = Options()


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores of a model on a data set.

    Attributes:
        confusion: counted pixels.
        names: of the K classes.
        trained: which of them the model was trained on.
        pictures: how many were counted.
        data, split: what they are of: the data set's title, or its folder's name if it has none.
    """

    confusion: Confusion
    names: tuple[str, ...]
    trained: tuple[bool, ...]
    pictures: int
    data: str
    split: str

    @property
    def miou_all(self) -> float | None:
        """Mean IoU over the classes that the truth holds, percent; None if it holds none."""
        return self.confusion.mean_iou()

    @property
    def miou_trained(self) -> float | None:
        """The same over those that the model was trained on."""
        return self.confusion.mean_iou(self.trained)

    @property
    def miou_new(self) -> float | None:
        """The same over the others."""
        return self.confusion.mean_iou([not known for known in self.trained])

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of the counted pixels that got their class, percent."""
        return self.confusion.pixel_accuracy()

    def summary(self) -> dict[str, Any]:
        """The scores without the classes, and what was scored, as JSON values."""
        return {
            "miou_all": self.miou_all,
            "miou_trained": self.miou_trained,
            "miou_new": self.miou_new,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.confusion.mean_accuracy(),
            "fwiou": self.confusion.frequency_weighted_iou(),
            "pictures": self.pictures,
            "data": self.data,
            "split": self.split,
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values: `summary`, "confused", and "classes" with their IoU (percent) and pixels.

        "confused" are the pairs of classes with the most pixels: what is true, what was predicted, how many,
        and how many of a hundred of the true class.

        None stands where there is nothing to score: a class that the truth does not hold, a mean of none.
        """
        rows = zip(self.names, self.trained, self.confusion.iou(), self.confusion.pixels, strict=True)
        return self.summary() | {
            "confused": self.confused(),
            "classes": [
                {
                    "name": name,
                    "trained": known,
                    "iou": 100 * float(iou) if pixels else None,
                    "pixels": int(pixels),
                }
                for name, known, iou, pixels in rows
            ],
        }

    def confused(self) -> list[dict[str, Any]]:
        """The pairs of classes that are taken for one another most, as in `to_json`."""
        return [
            {
                "truth": self.names[truth],
                "prediction": self.names[found],
                "pixels": pixels,
                "percent": 100 * pixels / int(self.confusion.pixels[truth]),
            }
            for truth, found, pixels in self.confusion.most_confused(MOST_CONFUSED)
        ]

    def table(self) -> str:
        """The scores as text, a line a class, the means below."""
        values = self.to_json()
        means = {
            "mIoU, all classes": self.miou_all,
            "mIoU, trained": self.miou_trained,
            "mIoU, new": self.miou_new,
            "pixel accuracy": self.pixel_accuracy,
            "mean accuracy": values["mean_accuracy"],
            "frequency weighted IoU": values["fwiou"],
        }
        width = max(map(len, (*self.names, *means)))
        lines = [f"{'class':<{width}}  kind       IoU        pixels"]
        for row in values["classes"]:
            kind = "trained" if row["trained"] else "new"
            lines.append(f"{row['name']:<{width}}  {kind:<7}  {percent(row['iou'])}  {row['pixels']:>12,}")
        lines.append("")
        lines += [f"{name:<{width}}           {percent(value)}" for name, value in means.items()]
        lines.append(f"{'pictures':<{width}}           {self.pictures:>5}")
        if values["confused"]:
            lines += ["", "taken for one another most:"]
        for pair in values["confused"]:
            share = f"{pair['percent']:.1f} % of {pair['truth']}"
            lines.append(f"  {share} taken for {pair['prediction']}: {pair['pixels']:,} pixels")
        return "\n".join(lines)


def percent(value: float | None) -> str:
    """Five characters with one digit after the point, or a dash."""
    return f"{value:5.1f}" if value is not None else "    -"


def evaluate(
    ebseg: EBSeg,
    folder: SegmentationFolder,
    *,
    short_side: int | Literal["configured"] | None = "configured",
    long_side: int | Literal["configured"] = "configured",
    balance: Balance | None = None,
    limit: int | None = None,
    pictures: Path | None = None,
    picture_count: int = 20,
    shown: bool = True,
    part: int = 0,
    parts: int = 1,
    over_all: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda counts: counts,
) -> Evaluation:
    """Scores a model in this process, or its share of the pictures where several do.

    Args:
        ebseg: on any device; its mode is left as it was.
        folder: a split with truth.
        balance: instead of the model's own.
        short_side, long_side, limit, pictures, picture_count, shown: see `confusion_counts.Options`.
        part, parts: this process's share, see `confusion_counts.count`.
        over_all: adds the counts of all processes up.

    Raises:
        TrainingError: a file of the folder is wrong, or the model's output is not finite.
    """
    options = Options(
        short_side=short_side,
        long_side=long_side,
        limit=limit,
        pictures=pictures,
        picture_count=picture_count,
        shown=shown,
    )
    plan = count_plan(ebseg, folder, (balance,), options)
    own = len(range(part, len(plan), parts))
    with progress("evaluating", total=own, shown=shown) as bar:
        (confusion,) = count(ebseg, plan, bar.advance, part, parts)
    return _finished(plan, Confusion.of(over_all(confusion.counts)))


def evaluate_checkpoint(
    loaded: LoadedCheckpoint,
    folder: SegmentationFolder,
    *,
    balance: Balance | None = None,
    processes: int = 1,
    options: Options = DEFAULTS,
) -> Evaluation:
    """Scores a checkpoint's model, in one process or several; see `confusion_counts.count_loaded`.

    Raises:
        TrainingError: a file of the folder is wrong, the model's output is not finite, or a process died.
    """
    plan = count_plan(loaded.ebseg, folder, (balance,), options)
    (confusion,) = count_loaded(loaded, plan, processes=processes)
    return _finished(plan, confusion)


def count_plan(
    ebseg: EBSeg,
    folder: SegmentationFolder,
    balances: tuple[Balance | None, ...],
    options: Options = DEFAULTS,
) -> CountPlan:
    """What to count to score a model on a folder; the model says which classes are trained.

    A data set may name any class as fit for training; what a model was in fact trained on, the model
    knows: of ADE20K's 150 classes, one trained on COCO-Stuff has seen 67.
    """
    plain = Vocabulary.of([dataclasses.replace(item, trained=None) for item in folder.classes])
    vocabulary = Vocabulary.of(plain.classes, trained=ebseg.trained(plain))
    return CountPlan(folder=folder, vocabulary=vocabulary, balances=balances, options=options)


def scores(plan: CountPlan, confusion: Confusion) -> Evaluation:
    """What was counted, as an evaluation."""
    vocabulary, folder = plan.vocabulary, plan.folder
    return Evaluation(
        confusion=confusion,
        names=tuple(vocabulary.names),
        trained=tuple(item.trained is True for item in vocabulary.classes),
        pictures=len(plan),
        data=folder.title or folder.root.resolve().name,
        split=folder.split,
    )


def _finished(plan: CountPlan, confusion: Confusion) -> Evaluation:
    panels = plan.panel_paths()
    if panels:
        save_contact_sheet(panels[0].parent / CONTACT_SHEET, panels)
    return scores(plan, confusion)
