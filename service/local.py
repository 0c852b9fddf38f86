"""`ebseg segment`: one picture, one table, no server."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.vocabulary import Vocabulary
from service import encode
from service.answer import UNTRAINED, Outcome, json_answer, make_file
from service.colors import class_colors
from service.deadline import Deadline
from service.decode import decode, settle_warnings
from service.engine import Engine, Job, Segmentation, device_names, load_engine
from service.errors import InvalidRequestError, field_problems
from service.logging import configure
from service.pipeline import check_length, given_vocabulary
from service.schemas import SegmentAnswer, SegmentRequest
from service.settings import Settings

OVERLAY_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class UsageError(Exception):
    """A file that cannot be read or written as asked."""


def segment_file(
    settings: Settings,
    *,
    picture_file: Path,
    request: dict[str, Any],
    out: Path | None,
    overlay: Path | None,
    as_json: bool,
) -> None:
    """Segments a file, writes what was asked for and prints what was found.

    Args:
        settings: checkpoint, device, dtype and limits.
        picture_file: the picture.
        request: as in the body of `POST /v1/segment`.
        out: where the label map goes, PNG.
        overlay: where the picture under its mask goes; the suffix tells the format.
        as_json: print JSON instead of a table.

    Raises:
        UsageError: a file or its name.
        ServiceError: the picture or the request.
        ModelError: the classes or the checkpoint.
        OSError: a result cannot be written.
    """
    configure("error", "text")
    settle_warnings()
    # whatever can be wrong is looked at before the model is loaded, which takes seconds
    directory = settings.checkpoint_folder()
    _check_target(out, (".png",))
    _check_target(overlay, OVERLAY_SUFFIXES)
    try:
        spec = SegmentRequest.model_validate(request)
    except ValidationError as error:
        raise InvalidRequestError(field_problems(error.errors())) from None
    vocabulary = _vocabulary(spec, settings.max_classes)
    began = time.perf_counter()
    picture = decode(_read(picture_file), max_pixels=settings.max_pixels)
    decoded = time.perf_counter()
    progress = Console(stderr=True)
    with _status(progress, "loading the model"):
        device = device_names(settings.device)[0]
        engine = load_engine(directory, device=device, dtype=settings.dtype, golden=False)
    with _status(progress, "segmenting"):
        deadline = Deadline(float("inf"))
        threshold = 0.0 if spec.background is None else spec.background.threshold
        result = _segmentation(engine, picture, vocabulary, threshold, deadline)
    info = engine.info
    given_colors: list[str | None] = [None] * len(vocabulary)
    outcome = Outcome(
        vocabulary=vocabulary,
        given_colors=given_colors,
        info=info,
        result=result,
        picture=None,
        background=spec.background is not None,
        outputs=frozenset(["rle"] if as_json else []),
        request_id="",
        seconds={"decode": decoded - began, **result.seconds},
        began=began,
        caches=None,
        check=deadline.check,
    )
    if out is not None:
        out.write_bytes(make_file(outcome, "png"))
    if overlay is not None:
        _write_overlay(overlay, encode.overlay(picture, result.labels, class_colors(given_colors)))
    answer = json_answer(outcome)
    if as_json:
        print(answer.model_dump_json(exclude_unset=True, exclude={"request_id"}))
    else:
        _print_table(answer)
    if info.untrained:
        progress.print(UNTRAINED, style="bold red", highlight=False)


def _vocabulary(spec: SegmentRequest, max_classes: int) -> Vocabulary:
    """The classes that are asked for; only the built-in lists have names here."""
    if spec.vocabulary is None:
        vocabulary = given_vocabulary(spec)
    elif spec.vocabulary in Vocabulary.builtin_names():
        vocabulary = Vocabulary.builtin(spec.vocabulary, spec.templates)
    else:
        raise UsageError(
            f"there is no built-in vocabulary {spec.vocabulary!r}; "
            f"known are {', '.join(Vocabulary.builtin_names())}"
        )
    check_length("classes", len(vocabulary), max_classes)
    return vocabulary


def _segmentation(
    engine: Engine, picture: NDArray[np.uint8], vocabulary: Vocabulary, threshold: float, deadline: Deadline
) -> Segmentation:
    """What the service does with one picture, without its queue."""
    began = time.perf_counter()
    prepared = engine.prepare(picture)
    prediction = engine.predict([prepared])[0]
    predicted = time.perf_counter()
    text = engine.embed(vocabulary.names, vocabulary.templates)
    embedded = time.perf_counter()
    job = Job(
        engine=engine,
        prepared=prepared,
        prediction=prediction,
        vocabulary=vocabulary,
        text=text,
        output_size=(picture.shape[0], picture.shape[1]),
        threshold=threshold,
        balance=None,
        scores=False,
        deadline=deadline,
    )
    result = engine.classify(prediction, job)
    seconds = {"predict": predicted - began, "text": embedded - predicted, **result.seconds}
    return dataclasses.replace(result, seconds=seconds)


def _check_target(path: Path | None, suffixes: tuple[str, ...]) -> None:
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path} must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{path} cannot be written: {path.parent} is no folder, or it is one itself")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _write_overlay(path: Path, picture: NDArray[np.uint8]) -> None:
    if path.suffix.lower() == ".webp" and max(picture.shape[:2]) > encode.WEBP_LONGEST:
        raise UsageError(f"{path}: WebP takes at most {encode.WEBP_LONGEST} pixels a side; take .png")
    Image.fromarray(picture).save(path)


@contextmanager
def _status(console: Console, text: str) -> Iterator[None]:
    """A spinner while standard error is a terminal."""
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        yield


def _print_table(answer: SegmentAnswer) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 120  # a file or pipe has no edge
    model = answer.model
    state = " (UNTRAINED)" if model.untrained else ""
    table = Table(
        title=Text(f"{answer.size.width} x {answer.size.height}, {model.name}/{model.version}{state}")
    )
    table.add_column("")
    table.add_column("class")
    for heading in ("area", "confidence"):
        table.add_column(heading, justify="right")
    table.add_column("known as")
    found = sorted((item for item in answer.classes if item.area), key=lambda item: -item.area)
    for item in found:
        table.add_row(
            Text("██", style=item.color),
            Text(item.name),
            f"{item.fraction:.1%}",
            f"{item.mean_confidence:.2f}",
            "trained" if item.trained else "new",
        )
    if answer.other is not None:
        table.add_row("", Text("other", style="italic"), f"{answer.other.fraction:.1%}", "", "")
    console.print(table)
    missing = [item.name for item in answer.classes if not item.area]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        console.print(Text(f"not found: {', '.join(missing[:10])}{more}"))
