"""The pictures of `ebseg segment`, one after the other: what is written and printed of each."""

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ebseg_client import Segmentation
from ebseg_client.parallel import in_order
from model.storage.files import replacing
from service.commands.segment.coco_document import CocoDocument
from service.commands.segment.plan import MASK_FORMS, SegmentPlan
from service.commands.tables import print_table, stdout
from service.errors import UsageError
from service.local.georeference import in_world
from service.local.picture_result import FileResult, PictureSegmenter
from service.segmentation.render import WEBP_LONGEST
from service.segmentation.sheet import SheetEntry, contact_sheet

MOST_ON_SHEET = 60  # pictures; more would make a sheet that no viewer opens
SHOWN = 4  # classes named in a row of the table of many pictures
WRITERS = 2  # threads that write results


def run(job: SegmentPlan, source: PictureSegmenter) -> int:
    """Segments the files of a job, writes and prints what was found; the number of those that failed.

    Raises:
        Exception: whatever keeps all files, or the only one, from being segmented.
        UsageError, OSError: a result cannot be written.
    """
    pictures = job.overlays is not None or job.sheet is not None or "cutout" in job.saved
    instances, panoptic = CocoDocument(), CocoDocument()
    for targets in (job.masks, job.overlays, *job.saved.values()):
        for target in (targets or {}).values():
            target.parent.mkdir(parents=True, exist_ok=True)  # exists already, unless it is a folder of many
    entries: list[SheetEntry] = []
    rows: list[_Row] = []
    with ExitStack() as stack:
        results = stack.enter_context(
            closing(source.segmented(job.files, pictures=pictures, parallel=job.parallel))
        )
        written = stack.enter_context(closing(in_order(lambda one: _written(job, one), results, WRITERS)))
        bar = stack.enter_context(_bar(job))
        for one in written:
            bar()
            if not job.many:
                one.get()
            rows.append(_Row.of(one))
            if job.coco is not None and one.found is not None:
                instances.add(one.file, one.found.document.pop("coco"))
            if job.panoptic is not None and one.found is not None:
                name = job.saved["panoptic"][one.file].name
                panoptic.add(one.file, one.found.document["panoptic"]["document"], name)
            if one.found is not None:
                for name in job.saved:
                    del one.found.document[name]  # they are in their files
            if job.as_json:
                print(json.dumps(_json_line(job, one)), flush=job.many)
            elif one.found is not None and not job.many:
                _print_table(one.found.answer)
            if job.sheet is not None and one.found is not None and len(entries) < MOST_ON_SHEET:
                entries.append(one.found.entry(one.file.name))
    for place, made in ((job.coco, instances), (job.panoptic, panoptic)):
        if place is not None:
            with replacing(place) as partial:
                partial.write_text(json.dumps(made.document()), encoding="utf-8")
    if job.sheet is not None and entries:
        contact_sheet(entries).save(job.sheet)
    if job.many and not job.as_json:
        _print_many(rows)
    _remarks(job, rows, len(entries))
    if not job.as_json and any(row.error is None for row in rows):
        print(f"next: {_next(job)}")
    return sum(row.error is not None for row in rows)


@dataclass(frozen=True, slots=True)
class _Row:
    """What is remembered of a file until the end."""

    file: Path
    size: str
    classes: str
    warnings: tuple[str, ...]
    error: str | None

    @classmethod
    def of(cls, one: FileResult) -> "_Row":
        if one.found is None:
            return cls(one.file, "", "", (), _one_line(one.error))
        answer = one.found.answer
        named = [f"{item.name} {item.fraction:.0%}" for item in answer.found[:SHOWN]]
        more = [f"{len(answer.found) - SHOWN} more"] if len(answer.found) > SHOWN else []
        size = f"{answer.width} x {answer.height}"
        return cls(one.file, size, ", ".join(named + more), tuple(map(str, answer.warnings)), None)


def _written(job: SegmentPlan, one: FileResult) -> FileResult:
    """Writes a file's results; a thread does it."""
    if one.found is None:
        return one
    try:
        if job.masks is not None:
            with replacing(job.masks[one.file]) as partial:
                one.found.write_mask(partial, one.file, MASK_FORMS[job.masks[one.file].suffix.lower()])
        for name, targets in job.saved.items():
            value = one.found.document[name]
            if name == "geojson" and job.world:
                value = in_world(value, one.file)
            with replacing(targets[one.file]) as partial:
                partial.write_bytes(_content(value))
        if job.overlays is not None:
            _write_overlay(job.overlays[one.file], one.found.overlay())
    except UsageError as error:
        return FileResult(one.file, None, error)
    return one


def _content(value: Any) -> bytes:
    """A file of an answer: base64, or a document; of a panoptic one its picture."""
    if isinstance(value, dict) and "png" in value:
        value = value["png"]
    return base64.b64decode(value) if isinstance(value, str) else json.dumps(value).encode()


def _write_overlay(path: Path, picture: NDArray[np.uint8]) -> None:
    if path.suffix.lower() == ".webp" and max(picture.shape[:2]) > WEBP_LONGEST:
        raise UsageError(f"{path}: WebP takes at most {WEBP_LONGEST} pixels a side; take .png")
    with replacing(path) as partial:
        Image.fromarray(picture).save(partial)


@contextmanager
def _bar(job: SegmentPlan) -> Iterator[Any]:
    """A bar on standard error for many pictures, while it is a terminal; call it once a picture."""
    console = Console(stderr=True)
    # lines of JSON would run through the bar
    shown = job.many and console.is_terminal and not (job.as_json and stdout().is_terminal)
    columns = (TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("segmenting", total=len(job.files))
        yield lambda: progress.advance(task)


def _json_line(job: SegmentPlan, one: FileResult) -> dict[str, Any]:
    if one.found is None:
        return {"picture": str(one.file), "error": _one_line(one.error)}
    return {"picture": str(one.file), **one.found.document} if job.many else one.found.document


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _print_table(answer: Segmentation) -> None:
    model = answer.model
    state = " (UNTRAINED)" if model.untrained else ""
    table = Table(title=Text(f"{answer.width} x {answer.height}, {model.name}/{model.version}{state}"))
    table.add_column("")
    table.add_column("class")
    for heading in ("area", "confidence"):
        table.add_column(heading, justify="right")
    table.add_column("known as")
    for item in answer.found:
        table.add_row(
            Text("██", style=item.color),
            Text(item.name),
            f"{item.fraction:.1%}",
            f"{item.confidence:.2f}",
            "trained" if item.trained else "new",
        )
    if answer.other is not None:
        below = f"< {answer.background.threshold:.2f}"
        table.add_row("", Text("other", style="italic"), f"{answer.other.fraction:.1%}", below, "")
    console = stdout()
    console.print(table)
    missing = [item.name for item in answer.classes if not item.area]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        console.print(Text(f"not found: {', '.join(missing[:10])}{more}"))


def _print_many(rows: Sequence[_Row]) -> None:
    failed = sum(row.error is not None for row in rows)
    print_table(
        ("image", "size", "found"),
        ((row.file, row.size, row.classes if row.error is None else Text("failed", "red")) for row in rows),
        title=f"{len(rows)} images" + (f", {failed} failed" if failed else ""),
    )


def _next(job: SegmentPlan) -> str:
    """What to look at, or how to get something to look at."""
    shown = [job.sheet] if job.sheet is not None else []
    for targets in (job.overlays, *job.saved.values(), job.masks):
        if targets is not None:
            first = next(iter(targets.values()))
            shown.append(first.parent if job.many else first)
    shown += [job.coco] if job.coco is not None else []
    if shown:
        return f"look at {shown[0]}"
    drawn = "--overlay overlays draws them" if job.many else "--overlay overlay.png draws it"
    return f"the same with {drawn}, with --json prints all of it"


def _remarks(job: SegmentPlan, rows: Sequence[_Row], on_sheet: int) -> None:
    console = Console(stderr=True, highlight=False)
    for row in rows if job.many and not job.as_json else ():
        if row.error is not None:
            print(f"ebseg: failed: {row.file}: {row.error}", file=sys.stderr)
    for warning in dict.fromkeys(warning for row in rows for warning in row.warnings):
        console.print(Text(warning, "bold red"), soft_wrap=True)
    done = sum(row.error is None for row in rows)
    if job.sheet is not None and on_sheet < done:
        console.print(f"{job.sheet} shows the first {on_sheet} of {done} images", markup=False)
