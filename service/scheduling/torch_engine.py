"""`TorchEngine`: a checkpoint on a device, as the scheduler runs it."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.allocator import keep_freed_memory
from model.confidence.domain import OwnWords
from model.errors import CheckpointError, ModelError, PictureError
from model.network.copies import copies_of, download, upload
from model.network.device import number_type
from model.network.kernels import LABEL_MAPS_AT_ONCE, ONE_PICTURE_AT_A_TIME
from model.network.pictures import padded_size
from model.segmenter import Segmenter
from model.storage import checkpoint
from model.transforms import network_size
from model.vocabulary.classes import Vocabulary
from service.scheduling.classified import Prediction, classified, on_device
from service.scheduling.deadline import Deadline
from service.scheduling.device_memory import Room
from service.scheduling.engine import (
    EngineClosedError,
    EngineResult,
    Job,
    Measurement,
    ModelInfo,
    PreparedPicture,
    unit_rows,
)
from service.scheduling.out_of_memory import release_memory
from service.scheduling.padded_shapes import few_shapes, listed
from service.scheduling.recordings import Recordings
from service.settings import SettingsError

_WARM_WORDS = ("sky", "tree", "road", "house")  # embedded and classified by `warm`
_WARM_LIST = tuple(f"new thing {number}" for number in range(16))  # and embedded: what more words take
_LARGEST_BATCH = 64  # that is tried; `max_batch_size` bounds what is used
_WORTH = 1.05  # a larger batch has to give so many times the pictures a second of the smaller one


class TorchEngine:
    """A checkpoint on a device.

    Args:
        segmenter, info: of `load_engine`.
        text_digest: sha256 of the text tower's weights.
        shapes: that pictures are padded to where one is near enough; see `padded_shapes`.
        early: whether `prepare` brings pictures to the device, while it works for others.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        info: ModelInfo,
        text_digest: str,
        shapes: Sequence[tuple[int, int]] = (),
        *,
        early: bool = False,
    ):
        self._segmenter: Segmenter | None = segmenter
        self._own_words: OwnWords | None = None
        if info.card is not None and info.card.confidence is not None:
            self._own_words = OwnWords(segmenter, info.card)
        self.info = info
        tokenizer = type(segmenter.ebseg.clip_text.tokenizer).__name__
        context = segmenter.ebseg.clip_text.positional_embedding.shape[0]
        self._batch = 1
        self._shapes = list(shapes)
        self._early = early
        self._room = Room.of(segmenter.ebseg.device)
        self._recordings: Recordings | None = Recordings(segmenter.ebseg, self._room)
        self._warm = False  # whether anything has run
        self.text_digest = hashlib.sha256(f"{text_digest}:{tokenizer}:{context}".encode()).hexdigest()

    @property
    def segmenter(self) -> Segmenter:
        """The model.

        Raises:
            EngineClosedError: the engine is closed.
        """
        if self._segmenter is None:
            raise EngineClosedError(f"the engine of {self.info.name}/{self.info.version} is closed")
        return self._segmenter

    @property
    def batch(self) -> int:
        """One on a CPU, where pictures of a batch run one after the other; on CUDA what `warm` found best."""
        return self._batch

    def room(self, shape: tuple[int, int]) -> int:
        """No bound on a CPU; on CUDA by what `warm` measured and what is free."""
        return self._room.most(shape)

    def cost(self, size: tuple[int, int]) -> int:
        """Pixels of a picture at network resolution, padded as the network does; of its rows and columns."""
        segmenter = self.segmenter
        rows, columns = listed(network_size(size, segmenter.short_side, segmenter.long_side), self._shapes)
        return rows * columns

    def tokens(self, names: Sequence[str], templates: Sequence[str]) -> list[int]:
        """Tokens for each name with all templates: its own and its end's, a template's being read once."""
        tokenizer = self.segmenter.ebseg.clip_text.tokenizer
        return [len(templates) * (len(tokenizer.encode(name)) + 1) for name in names]

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        """RGB uint8 [H, W, 3] -> uint8 [3, h, w] at network resolution, on the host or already on the device.

        Raises:
            PictureError: a shape that the model cannot take.
        """
        pixels = self.segmenter.prepare(picture)
        shape = (pixels.shape[1], pixels.shape[2])
        if self._early:
            pixels = upload(pixels, self.segmenter.ebseg.device)
        padded = listed(shape, self._shapes)
        return PreparedPicture(pixels=pixels, shape=padded, cost=padded[0] * padded[1])

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Prediction]:
        """Runs the network on pictures of one padded shape."""
        try:
            predictions = self._predicted(prepared)
        except torch.OutOfMemoryError:
            self._room.ran_out(prepared[0].shape, len(prepared))
            raise
        self._room.ran()
        return predictions

    def _predicted(self, prepared: Sequence[PreparedPicture]) -> list[Prediction]:
        segmenter = self.segmenter
        if len({one.shape for one in prepared}) != 1:
            raise PictureError("images of one batch must have one padded shape")
        masks = segmenter.predict_each([one.pixels for one in prepared], prepared[0].shape)
        if len(prepared) > 1:  # slices of a batch would keep all of it in the prediction cache
            masks = [own.map(Tensor.clone) for own in masks]
        sure: Sequence[float | None] = [None] * len(masks)
        if self._own_words is not None:
            sure = self._own_words.confidences(masks)
        copies_of(segmenter.ebseg.device).settle()  # so that errors and seconds are this batch's own
        return [Prediction(own, confidence) for own, confidence in zip(masks, sure, strict=True)]

    @property
    def classified_at_once(self) -> int:
        """One on a CPU, which makes them one after the other."""
        return LABEL_MAPS_AT_ONCE.on(self.segmenter.ebseg.device)

    def classify(self, prediction: Prediction, job: Job) -> EngineResult:
        """The label map of one picture, and the scores if they are wanted."""
        return self.classify_each([prediction], [job])[0]

    def classify_each(self, predictions: Sequence[Prediction], jobs: Sequence[Job]) -> list[EngineResult]:
        """Of any sizes and vocabularies; see `classified`."""
        return classified(self.segmenter, predictions, jobs)

    def to_host(self, prediction: Prediction) -> Prediction:
        """The same in the host's memory; itself on a CPU."""
        return replace(prediction, masks=on_device(prediction.masks, torch.device("cpu")))

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """The mean over the templates of unit embeddings, float32 [K, C], on the CPU."""
        means = self.segmenter.ebseg.clip_text.mean_embeddings(names, templates)
        return download([means.float()])[0].contiguous()

    def warm(self, shape: tuple[int, int]) -> list[Measurement]:
        """Runs a grey picture of a network shape, four words and a list; at first, finds the best batch."""
        pixels = torch.full((3, *shape), 127, dtype=torch.uint8)
        padded = padded_size(shape)
        picture = PreparedPicture(pixels=pixels, shape=padded, cost=padded[0] * padded[1])
        first = not self._warm
        if first:  # libraries load, memory is taken: no measure of what comes later
            self._steps(picture)
            self._warm = True
        measured = self._steps(picture)
        if first and self.segmenter.ebseg.device.type != "cpu":
            self._batch = self._best_batch(picture, measured[0].seconds)
        if self._recordings is not None and self._recordings.record(padded, self._batch):
            measured = self._steps(picture)
        return measured

    def _steps(self, picture: PreparedPicture) -> list[Measurement]:
        vocabulary, words = Vocabulary.of(_WARM_WORDS), _WARM_WORDS
        began = time.perf_counter()
        (prediction,) = self._room.measure(picture.shape, 1, lambda: self.predict([picture]))
        predicted = time.perf_counter()
        means = self.embed(words, vocabulary.templates)
        embedded = time.perf_counter()
        self.embed(_WARM_LIST, vocabulary.templates)
        list_embedded = time.perf_counter()
        job = Job(
            engines=(self,),
            prepared=picture,
            prediction=prediction,
            vocabulary=vocabulary,
            text=unit_rows(means),
            output_size=picture.shape,
            threshold=0.0,
            balance=None,
            scores=False,
            deadline=Deadline(float("inf")),
        )
        self.classify(prediction, job)
        classified = time.perf_counter()
        rows, columns = picture.shape
        return [
            Measurement("predict", picture.cost, predicted - began),
            Measurement("embed", sum(self.tokens(words, vocabulary.templates)), embedded - predicted),
            Measurement(
                "embed", sum(self.tokens(_WARM_LIST, vocabulary.templates)), list_embedded - embedded
            ),
            Measurement("classify", rows * columns * len(words), classified - list_embedded),
        ]

    def _best_batch(self, picture: PreparedPicture, alone_s: float) -> int:
        """The smallest batch that gives about as many pictures a second as any that fits."""
        best, best_rate, size = 1, 1 / alone_s, 2
        while size <= min(_LARGEST_BATCH, self.room(picture.shape)):
            batch = [picture] * size
            try:
                self._room.measure(picture.shape, size, partial(self.predict, batch))
                began = time.perf_counter()
                self.predict(batch)
            except torch.OutOfMemoryError as error:
                release_memory(error)
                break
            rate = size / (time.perf_counter() - began)
            if rate > _WORTH * best_rate:
                best, best_rate = size, rate
            size *= 2
        return best

    def close(self) -> None:
        """Lets go of the weights."""
        self._segmenter = self._own_words = self._recordings = None


def load_engine(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    verify_digests: bool = True,
    golden: bool = True,
    map_weights: bool = False,
    padding: str = "own",
    early: bool = False,
) -> TorchEngine:
    """Loads a version folder for serving, and sees that it computes what its golden file says.

    Args:
        folder: a version folder.
        device: such as "cpu" or "cuda:0".
        dtype: name of the compute dtype, or "auto"; see `number_type`.
        verify_digests: leave it out only for a folder that was just verified.
        golden: run the golden test, which takes as long as a picture; and look at the text tower's digest.
        map_weights: leave weights on the CPU in their file; see `checkpoint.load`.
        early: see `TorchEngine`; of use where no other device may get the picture.
        padding: "own", or "few" for a short list of padded shapes; see `padded_shapes`.

    Raises:
        CheckpointError: the folder is not what it should be, or computes something else.
        SettingsError: the device only emulates the number type, or pads for nothing.
    """
    keep_freed_memory()
    try:
        dtype = number_type(dtype, torch.device(device))
    except ModelError as error:
        raise SettingsError(f"dtype: {error}") from None
    if padding == "few" and ONE_PICTURE_AT_A_TIME.on(torch.device(device)):
        raise SettingsError("padding: few is of use on a GPU; a CPU runs images one by one, take own")
    loaded = checkpoint.load(folder, device=device, verify_digests=verify_digests, mapped=map_weights)
    if golden:
        if loaded.ebseg.text_digest() != loaded.manifest.text_digest:
            # text embeddings are shared under this digest, with other versions and other processes
            raise CheckpointError(f"{folder}: the manifest's text_digest is not that of the text tower")
        checkpoint.check_golden(loaded)
    if dtype != "float32":
        loaded.ebseg.to_compute_dtype(getattr(torch, dtype))
    manifest = loaded.manifest
    info = ModelInfo(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        untrained=manifest.untrained,
        variant=manifest.variant,
        device=device,
        dtype=dtype,
        balance=loaded.ebseg.config.balance,
        license=manifest.license,
        card=manifest.card,
        context_length=loaded.ebseg.clip_text.positional_embedding.shape[0],
        weight_bytes=loaded.ebseg.weight_bytes,
        training_words=loaded.ebseg.training_classes.words,
    )
    shapes = few_shapes(loaded.ebseg.config.short_side) if padding == "few" else []
    return TorchEngine(Segmenter(loaded.ebseg), info, manifest.text_digest, shapes, early=early)


def device_names(setting: str) -> list[str]:
    """The devices of the setting `device`: ["cpu"], ["cuda:0", "cuda:1"] and the like.

    Raises:
        SettingsError: one of them is not here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        return [f"cuda:{index}" for index in range(count)] or ["cpu"]
    names = ["cuda:0" if name == "cuda" else name for name in setting.split(",")]
    for name in names:
        if name != "cpu" and int(name.partition(":")[2]) >= count:
            raise SettingsError(f"device {name}: there is none; {count} CUDA devices are here")
    return names
