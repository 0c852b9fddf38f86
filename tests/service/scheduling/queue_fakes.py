"""A queue without threads, at times that the test chooses."""

import asyncio
import time

import torch

from service.scheduling.batch_limits import BatchLimits
from service.scheduling.delivery import CompletionQueue
from service.scheduling.queue import Queue
from service.scheduling.text_work import TextRequest
from service.scheduling.work import ClassifyStep, DeviceCall, EmbedStep, PredictStep, Request
from tests.service.scheduling.scheduler_fakes import TEXT, NumberEngine, job

Turn = tuple[str, list[int]] | str | None


class Line:
    """A queue, and requests by number that came at given seconds after the start."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        size: int,
        delay: float,
        ageing: float,
        devices: int,
        chunk: int,
    ):
        self.devices = devices
        self.queue = Queue(
            devices=devices, limits=BatchLimits(size), max_batch_delay_s=delay, chunk=lambda engine: chunk
        )
        self.engine = NumberEngine()
        self.ageing = ageing
        self.start = time.monotonic()
        self.completions = CompletionQueue(loop)

    def add(
        self,
        at: float,
        numbered: int,
        *,
        seconds: float = 100.0,
        shape: tuple[int, int] = (4, 6),
        engine: NumberEngine | None = None,
        cached: bool = False,
        key: bytes | None = None,
        text: torch.Tensor | None = TEXT,
        output_size: tuple[int, int] = (1, 3),
    ) -> Request:
        wanted = job(
            engine or self.engine,
            numbered,
            shape=shape,
            cached=cached,
            devices=self.devices,
            key=key,
            text=text,
            output_size=output_size,
        )
        wanted.deadline.at = self.start + at + seconds
        request = Request(self.completions, wanted, self.ageing)
        request.submitted = self.start + at
        request.urgency = min(wanted.deadline.at, request.submitted + self.ageing)
        self.queue.add(request)
        return request

    def call(self, name: str, at: float = 0.0, device: int = 0) -> DeviceCall[str]:
        call = DeviceCall(self.completions, device, lambda: name, self.ageing, self.start + at)
        self.queue.add(call)
        return call

    def text(self, at: float, *names: str, seconds: float = 100.0, templates: int = 1) -> TextRequest:
        wanted = job(self.engine, 0, seconds=seconds)
        request = TextRequest(
            self.completions,
            (self.engine,) * self.devices,
            names,
            tuple(f"{{}} {n}" for n in range(templates)),
            [templates] * len(names),
            wanted.deadline,
            self.ageing,
        )
        assert request.urgency == min(wanted.deadline.at, request.submitted + self.ageing)
        request.urgency = min(self.start + at + seconds, self.start + at + self.ageing)
        self.queue.add(request)
        return request

    def next(self, at: float = 0.0, device: int = 0) -> Turn:
        """The next turn; what predict gives is there at once, the steps of a block of names are run."""
        step = self.queue.next(device, self.start + at)
        if isinstance(step, PredictStep):
            for flight in step.flights:
                prediction = object()
                hosted = None if flight.picture_key is None else prediction
                self.queue.landed(flight, prediction, hosted, device, 0.0)
            return step.trigger, [int(flight.prepared.pixels) for flight in step.flights]
        if isinstance(step, ClassifyStep):
            jobs = [request.job for request in step.requests]
            return "classify", [
                int(one.prediction.number if one.prepared is None else one.prepared.pixels) for one in jobs
            ]
        if isinstance(step, EmbedStep):
            rows = step.block.add(torch.ones(len(step.names), 4), len(step.templates))
            if rows is None:
                self.queue.text.put_back(step.block)
            else:
                for request in self.queue.text.finish(step.block, rows):
                    request.answer(rows)
            return " ".join(step.names) + f" x{len(step.templates)}"
        return None if step is None else str(step.work())

    def turns(self, count: int, at: float = 0.0) -> list[Turn]:
        return [self.next(at) for _ in range(count)]


def line(
    loop: asyncio.AbstractEventLoop,
    *,
    size: int = 3,
    delay: float = 0.0,
    ageing: float = 1000.0,
    devices: int = 1,
    chunk: int = 1000,
) -> Line:
    return Line(loop, size, delay, ageing, devices, chunk)


def classified(*numbers: int) -> list[Turn]:
    return [("classify", [number]) for number in numbers]
