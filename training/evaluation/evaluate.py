"""Mean intersection over union of a model on a data set: all, trained and new classes.

Each picture is resized to the configured short side (640 for the released models), its label map
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
from training.evaluation.tally import Tally
from training.progress import progress

CONTACT_SHEET = "contact-sheet.png"
MOST_CONFUSED = WORST = 10  # pairs and pictures that are reported
SHOWN_WORST = 5  # pictures that the table names
DEFAULTS = Options()


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores of a model on a data set.

    Attributes:
        tally: what was counted.
        names: of the K classes.
        trained: which of them the model was trained on.
        pictures: how many were counted.
        data, split: what they are of: the data set's title, or its folder's name if it has none.
        differs: sentences on what is otherwise than in the released evaluation; None where nobody asked.
        worst: names of the pictures with the lowest mean IoU over their own classes, and that, percent.
    """

    tally: Tally
    names: tuple[str, ...]
    trained: tuple[bool, ...]
    pictures: int
    data: str
    split: str
    worst: tuple[tuple[str, float], ...] = ()
    differs: tuple[str, ...] | None = None

    @property
    def confusion(self) -> Confusion:
        """Counted pixels."""
        return self.tally.confusion

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
            "boundary_iou": self.tally.mean_boundary_iou(),
            "pictures": self.pictures,
            "data": self.data,
            "split": self.split,
        } | ({} if self.differs is None else {"differs": list(self.differs)})

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values: `summary`, "confused", "worst", and "classes" with IoU and pixels.

        "confused" are the pairs of classes with the most pixels: what is true, what was predicted, how many,
        and how many of a hundred of the true class.

        "worst" are the pictures with the lowest mean IoU over the classes that they show. IoU is in percent.

        None stands where there is nothing to score: a class that the truth does not hold, a mean of none.
        """
        ious, bands, pixels = self.confusion.iou(), self.tally.boundary_iou(), self.confusion.pixels
        rows = zip(self.names, self.trained, ious, bands, pixels, strict=True)
        return self.summary() | {
            "confused": self.confused(),
            "worst": [{"picture": name, "miou": miou} for name, miou in self.worst],
            "classes": [
                {
                    "name": name,
                    "trained": known,
                    "iou": 100 * float(iou) if pixels else None,
                    "boundary_iou": 100 * float(band) if pixels else None,
                    "pixels": int(pixels),
                }
                for name, known, iou, band, pixels in rows
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
            "boundary IoU": values["boundary_iou"],
        }
        width = max(map(len, (*self.names, *means)))
        lines = [f"{'class':<{width}}  kind       IoU        pixels"]
        for row in values["classes"]:
            kind = "trained" if row["trained"] else "new"
            lines.append(f"{row['name']:<{width}}  {kind:<7}  {percent(row['iou'])}  {row['pixels']:>12,}")
        lines.append("")
        lines += [f"{name:<{width}}           {percent(value)}" for name, value in means.items()]
        lines.append(f"{'images':<{width}}           {self.pictures:>5}")
        lines += [f"otherwise than in the released evaluation: {text}" for text in self.differs or ()]
        if values["confused"]:
            lines += ["", "taken for one another most:"]
        for pair in values["confused"]:
            share = f"{pair['percent']:.1f} % of {pair['truth']}"
            lines.append(f"  {share} taken for {pair['prediction']}: {pair['pixels']:,} pixels")
        if self.worst:
            shown = ", ".join(f"{name} {miou:.1f}" for name, miou in self.worst[:SHOWN_WORST])
            lines += ["", f"worst images, mIoU of each: {shown}"]
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
    batch: int = 1,
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
        short_side, long_side, limit, pictures, picture_count, batch, shown: see `confusion_counts.Options`.
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
        batch=batch,
        shown=shown,
    )
    plan = count_plan(ebseg, folder, (balance,), options)
    own = len(range(part, len(plan), parts))
    with progress("evaluating", total=own, shown=shown) as bar:
        (tally,) = count(ebseg, plan, bar.advance, part, parts)
    return _finished(plan, Tally.of(over_all(tally.vector()), len(plan.vocabulary)))


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
    (tally,) = count_loaded(loaded, plan, processes=processes)
    return _finished(plan, tally)


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


def scores(plan: CountPlan, tally: Tally) -> Evaluation:
    """What was counted, as an evaluation."""
    vocabulary, folder = plan.vocabulary, plan.folder
    return Evaluation(
        tally=tally,
        names=tuple(vocabulary.names),
        trained=tuple(item.trained is True for item in vocabulary.classes),
        pictures=len(plan),
        data=folder.title or folder.root.resolve().name,
        split=folder.split,
        worst=tuple((folder.names[index], miou) for index, miou in tally.worst(WORST)),
    )


def _finished(plan: CountPlan, tally: Tally) -> Evaluation:
    panels = plan.panel_paths()
    if panels:
        save_contact_sheet(panels[0].parent / CONTACT_SHEET, panels)
    return scores(plan, tally)
