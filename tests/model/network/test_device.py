"""Inference on the pretended accelerator: how often the host waits for it, and that it computes the same."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from model import EBSeg, LabelMap, Segmenter, TrainingClasses, Vocabulary
from model.network.build import build
from model.network.config import VARIANTS
from model.network.copies import download
from model.segmenter import LabelRequest
from model.vocabulary.classes import ClassName
from tests.golden.weights import picture
from tests.pretended import counted, pretended_device

SIZE = (70, 93)  # neither side is a multiple of anything
PHASES = (0.25, 0.75)  # of two pictures
VOCABULARY = Vocabulary.of([f"thing {i}" for i in range(30)])
# of labels, on weights of chance, whose classes are nearer to each other than trained ones
SAME = {"float32": 0.999, "bfloat16": 0.9, "float16": 0.98}


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device() as found:
        yield found


def pictures() -> Tensor:
    return torch.stack([picture(*SIZE, phase) for phase in PHASES])


@pytest.mark.parametrize("dtype", list(SAME))
@pytest.mark.parametrize("variant", ["tiny", "tiny-swin-t"])
def test_predict_and_label_maps(variant: str, dtype: str, device: torch.device) -> None:
    """Of every number type: no wait for predict, one for all label maps of whatever sizes."""
    ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=0)
    sizes = [(150, 300), SIZE, (5, 1200), (1, 1)]
    vocabularies = [VOCABULARY, Vocabulary.of(["sky", "sea"]), _with_synonyms(), VOCABULARY]
    text = {v.digest: ebseg.encode_text(v.words, v.templates) for v in vocabularies}
    wanted = _label_maps(ebseg, sizes, vocabularies, text)
    ebseg.to_compute_dtype(getattr(torch, dtype)).to(device)
    ebseg.predict(pictures())  # tables are made
    with counted() as counts:
        predictions = ebseg.predict(pictures())
    assert counts.waits == []
    assert predictions.device == device
    assert all(tensor.dtype == torch.float32 for tensor in predictions.tensors().values())
    segmenter = Segmenter(ebseg)
    requests = [
        LabelRequest(
            predictions=predictions[i % 2],
            vocabulary=vocabulary,
            output_size=size,
            text=text[vocabulary.digest].to(device),
            threshold=0.05,
        )
        for i, (size, vocabulary) in enumerate(zip(sizes, vocabularies, strict=True))
    ]
    with counted() as counts:
        found = segmenter.label_maps(requests)
    assert len(counts.waits) == 1, counts
    same = [(a.labels == b.labels).mean() for a, b in zip(found, wanted, strict=True)]
    assert min(same[:3]) >= SAME[dtype], same
    assert all(a.labels.dtype == np.uint16 for a in found)
    assert all(a.confidence.dtype == np.float32 for a in found)


def _with_synonyms() -> Vocabulary:
    classes = [ClassName(name="a", synonyms=("b", "c")), ClassName(name="d", threshold=0.2)]
    return Vocabulary(classes=tuple(classes))


def _label_maps(
    ebseg: EBSeg, sizes: list[tuple[int, int]], vocabularies: list[Vocabulary], text: dict[str, Tensor]
) -> list[LabelMap]:
    predictions, segmenter = ebseg.predict(pictures()), Segmenter(ebseg)
    return [
        segmenter.label_map(
            predictions, v, output_size=size, index=i % 2, text=text[v.digest], threshold=0.05
        )
        for i, (size, v) in enumerate(zip(sizes, vocabularies, strict=True))
    ]


def test_new_sizes_bring_no_wait_either(device: torch.device) -> None:
    """Tables and geometry of a size are made on the device."""
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0).to(device)
    with counted() as counts:
        ebseg.predict(pictures())
        ebseg.predict(torch.stack([picture(40, 130, phase) for phase in PHASES]))
    assert counts.waits == []


def test_names_are_embedded_without_a_wait(device: torch.device) -> None:
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)
    names = ["sky", "a rather long name of a thing", "tree", "house"]
    wanted = ebseg.encode_text(names)
    ebseg.to(device)
    with counted() as counts:
        found = ebseg.encode_text(names)
    assert counts.waits == []
    assert (download([found])[0] - wanted).abs().max() <= 1e-5


def test_score_maps_wait_for_nothing(device: torch.device) -> None:
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)
    text = ebseg.encode_text(VOCABULARY.words, VOCABULARY.templates)
    size = (150, 300)
    wanted = Segmenter(ebseg).score_maps(ebseg.predict(pictures()), VOCABULARY, output_size=size, text=text)
    ebseg.to(device)
    predictions, text = ebseg.predict(pictures()), text.to(device)
    with counted() as counts:
        found = Segmenter(ebseg).score_maps(predictions, VOCABULARY, output_size=size, text=text)
    assert counts.waits == []
    assert (found.cpu() - wanted).abs().max() <= 1e-4 * wanted.max()
