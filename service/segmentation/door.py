"""What answering a request needs of the engine: a place, a version and its device, behind one interface.

Decoding and encoding happen in the process that talks HTTP. `local_door.py` is for the one that has the
engine, too; with several workers that is another process, and `service/workers/remote_door.py` speaks to it.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.network.balance import Balance
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.hot_loading.canary import AnswerResult
from service.scheduling.deadline import Deadline
from service.scheduling.engine import EngineResult, ModelInfo
from service.scheduling.host_memory import HostAccount
from service.vocabularies.stored_vocabulary import StoredVocabulary

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownPicture:
    """A picture whose prediction is kept: its rows and columns, and what was remarked when it was decoded."""

    size: Size
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a request wants computed; `scheduling.engine.Job` says what most of it means.

    Attributes:
        prepared: of `Turn.prepare`; None where the prediction is kept.
        layout: of the picture's tiles; None for a picture in one piece.
        remarks: that decoding made, to be kept under the key.
    """

    prepared: Any
    layout: TileLayout | None
    vocabulary: Vocabulary
    output_size: Size
    threshold: float
    balance: Balance | None
    scores: bool
    deadline: Deadline
    key: bytes | None
    picture_size: Size
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """What was computed, and where its parts came from, as answers tell it."""

    result: EngineResult
    text: str
    text_seconds: float
    prediction: str


class Place(Protocol):
    """A request's place among those that are let in."""

    def hold(self, nbytes: int) -> None:
        """Reserves bytes of the host's memory; see `HostAccount.hold`."""


class Turn(Protocol):
    """One request's dealings with the version that answers it.

    `known`, `cost`, `reserve` and `prepare` are for picture threads, all else for the event loop's.

    Attributes:
        info: of the version.
        on_trial: whether it is a canary that got the request in its turn.
        passes_on: bytes of each of the picture's pixels that are held for as long as the request lasts.
    """

    info: ModelInfo
    on_trial: bool
    passes_on: int

    def begin(self, vocabulary: Vocabulary, deadline: Deadline, owner: str) -> None:
        """Begins to get the text embeddings.

        Args:
            vocabulary: K classes.
            deadline: of this attempt.
            owner: whose cached embeddings it may have; empty for everybody's.
        """

    def known(self, key: bytes) -> KnownPicture | None:
        """Whether a prediction is kept under a key."""

    def cost(self, size: Size) -> int:
        """Pixels that the network computes on for a picture of so many rows and columns."""

    def reserve(self, size: Size, pieces: int, classified: int) -> None:
        """Reserves what devices are expected to need.

        Args:
            size: rows and columns of the picture, or of each of its tiles.
            pieces: how many of them are to be predicted.
            classified: output pixels times words.

        Raises:
            ServiceError: as of `Ticket.reserve`.
        """

    def prepare(self, picture: NDArray[np.uint8], layout: TileLayout | None) -> Any:
        """Makes of RGB uint8 [H, W, 3], and of how it is cut, what `Question.prepared` is."""

    async def run(self, question: Question) -> Computed:
        """Waits for the devices.

        Raises:
            Exception: as of `Scheduler.answer`.
        """

    def give_up(self) -> None:
        """Wants the text embeddings no more."""

    async def was_late(self) -> bool:
        """Once its time is over: whether a device was at work, or would have been for too long.

        That a request stood in a long queue is no fault of a version.
        """

    def count_answer(self, result: AnswerResult, seconds: float | None = None) -> None:
        """Tells the version's trial what became of the answer; see `Lease.count_answer`."""

    def release(self) -> None:
        """Gives the version back; answers may still be counted."""


class Door(Protocol):
    """Where requests ask to be let in."""

    async def knock(self, model: str | None = None, version: str | None = None) -> None:
        """Refuses, before a body is read for nothing, who cannot be served now.

        Args:
            model, version: that have to be loaded, where the path names them.

        Raises:
            NotReadyError: nobody is served.
            UnhealthyError, NotFoundError: this version is not.
            QueueFullError: there is no place.
        """

    def admit(self, memory: HostAccount) -> AbstractAsyncContextManager[Place]:
        """Holds a place; arguments and errors as of `Admission.admit`."""

    def turn(
        self, place: Any, model: str | None, version: int | None = None, *, stable: bool = False
    ) -> AbstractAsyncContextManager[Turn]:
        """The version that answers; arguments and errors as of `Models.lease`.

        Args:
            place: of `admit`. What another turn has reserved of devices is given back.
        """

    async def vocabulary(self, name: str) -> StoredVocabulary:
        """A class list by its name; errors as of `Vocabularies.get`."""
