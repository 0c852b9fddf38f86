"""A large picture in tiles: each is predicted as a picture of its own, and bands are classified from them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.errors import PictureError
from model.tiling import MOST_TILES, TileLayout
from service.errors import invalid
from service.runtime import Service
from service.scheduling.engine import (
    Engine,
    EngineResult,
    Job,
    PredictedTile,
    PreparedPicture,
    TiledPrediction,
)
from service.scheduling.work import Request
from service.schemas.tiling import TilingSpec
from service.segmentation.request_text import RequestText

ROWS_HELD = 3  # rows of tiles whose predictions are held at a time: of a band, and of the next one


@dataclass(frozen=True, slots=True)
class PreparedTiles:
    """All tiles of a picture at network resolution, by row and column."""

    layout: TileLayout
    tiles: dict[tuple[int, int], PreparedPicture]


def chosen_layout(
    tiling: TilingSpec | None, picture: tuple[int, int], output: tuple[int, int], most: int = MOST_TILES
) -> TileLayout | None:
    """How a picture is cut; None if it stays whole: nothing else is asked for, or it fits into one tile.

    Args:
        tiling: the request's.
        picture, output: rows and columns.
        most: tiles that there may be.

    Raises:
        InvalidRequestError: there would be more.
    """
    if tiling is None:
        return None
    layout = TileLayout(picture, output, tiling.for_model())
    try:
        layout.check(most)
    except PictureError as error:
        raise invalid("tiling", str(error)) from None
    return layout if layout.count > 1 else None


def prepare_tiles(engine: Engine, picture: NDArray[np.uint8], layout: TileLayout) -> PreparedTiles:
    """Cuts a picture [H, W, 3]; slow, for a picture thread."""
    places = [(row, column) for row in range(layout.rows.count) for column in range(layout.columns.count)]
    return PreparedTiles(layout, {place: engine.prepare(picture[layout.part(*place)]) for place in places})


class BandsTogether:
    """The results of bands as that of the picture.

    Args:
        output: rows and columns.
    """

    def __init__(self, output: tuple[int, int]):
        self._labels = np.empty(output, np.uint16)
        self._confidence = np.empty(output, np.float32)
        self._scores: NDArray[np.float16] | None = None
        self._own: list[float] = []
        self._trained: list[bool] = []

    def add(self, rows: slice, band: EngineResult) -> None:
        """Takes in one of them; slow where it is large."""
        self._labels[rows], self._confidence[rows] = band.labels, band.confidence
        if band.scores is not None:
            if self._scores is None:
                self._scores = np.empty((len(band.scores), *self._labels.shape), np.float16)
            self._scores[:, rows] = band.scores
        self._trained = band.trained
        self._own += [] if band.own is None else [band.own]

    def result(self, seconds: dict[str, float], devices: dict[str, str]) -> EngineResult:
        """All of them."""
        return EngineResult(
            labels=self._labels,
            confidence=self._confidence,
            scores=self._scores,
            trained=self._trained,
            own=sum(self._own) / len(self._own) if self._own else None,
            seconds=seconds,
            devices=devices,
        )


async def segment_tiles(
    service: Service, job: Job, prepared: PreparedTiles, texts: RequestText, submitted: list[Request]
) -> EngineResult:
    """Runs a picture's tiles on the devices, those of two rows at a time, and bands as soon as they can be.

    Each tile waits for its turn as any picture does, so others are served between them.

    Args:
        service: with the devices.
        job: of the picture, without its pixels.
        prepared: its tiles.
        texts: on their way.
        submitted: gets all that was asked of the scheduler.

    Returns:
        With `seconds` of predict (until the last tile came, waits included), queue and classify (of bands).
    """
    layout, last = prepared.layout, prepared.layout.rows.count - 1
    together = BandsTogether(layout.output)
    seconds = {"queue": 0.0, "predict": 0.0, "classify": 0.0}
    devices: dict[str, str] = {}
    found: dict[tuple[int, int], PredictedTile] = {}
    rows: dict[int, list[asyncio.Task[PredictedTile]]] = {}

    def begin(row: int) -> None:
        tiles = [prepared.tiles.pop((row, column)) for column in range(layout.columns.count)]
        jobs = [replace(job, prepared=tile, text=None, predict_only=True) for tile in tiles]
        requests = [service.scheduler.submit(one) for one in jobs]
        submitted.extend(requests)
        rows[row] = [asyncio.create_task(service.scheduler.predicted(request)) for request in requests]

    try:
        begin(0)
        for row in range(last + 1):
            if row < last:
                begin(row + 1)
            began = time.perf_counter()
            for column, task in enumerate(rows[row]):
                found[row, column] = await task
            del rows[row]
            seconds["predict"] += time.perf_counter() - began
            devices["predict"] = found[row, 0].device
            needed = layout.needed(row)
            for place in [place for place in found if place[0] < min(needed, default=row)]:
                del found[place]
            if not needed:
                continue
            tiles = {place: found[place].prediction for place in found if place[0] in needed}
            band = TiledPrediction(layout=layout, band=row, tiles=tiles)
            running = service.scheduler.submit(
                replace(job, prediction=band, output_size=band.size, text=texts.tensor)
            )
            submitted.append(running)
            if running.job.text is None:
                texts.hand_over(running)
            result = await service.scheduler.answer(running)
            seconds["queue"] += result.seconds["queue"]
            seconds["classify"] += result.seconds["classify"]
            devices["classify"] = result.devices["classify"]
            await service.in_pool(together.add, layout.band(row), result)
    finally:
        await _end([task for tasks in rows.values() for task in tasks])
    return together.result(seconds, devices)


async def _end(tasks: Sequence[asyncio.Task[PredictedTile]]) -> None:
    """Takes tiles out of the queue that nobody waits for any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
