"""EBSeg-B and EBSeg-L at their real sizes, without their arithmetic: shapes, devices, and one graph."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from model import VARIANTS, EBSeg, TrainingClasses, Vocabulary
from model.network import copies
from model.network.build import build
from model.network.label_map import ClassifiedMasks, _band_by_band

CUDA = torch.device("cuda:0")
SHAPE, QUERIES, CLASSES = (640, 960), 100, 847


def empty(variant: str) -> EBSeg:
    """A model whose weights have no memory."""
    network = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=None)
    return network.to("meta").requires_grad_(False).eval()


def to_cuda(network: nn.Module) -> None:
    """Within `FakeTensorMode`: every tensor is said to be on a GPU."""
    for module in network.modules():
        for name, own in module._parameters.items():
            if own is not None:
                there = torch.empty(own.shape, dtype=own.dtype, device=CUDA)
                module._parameters[name] = nn.Parameter(there, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)


def facts(tensor: Tensor) -> tuple[list[int], torch.dtype, torch.device]:
    return [*tensor.shape], tensor.dtype, tensor.device


@pytest.mark.parametrize(("variant", "dtype"), [("base", torch.bfloat16), ("large", torch.float32)])
def test_predict_classify_and_label_map_on_a_gpu(variant: str, dtype: torch.dtype) -> None:
    """What mixes devices or number types raises; what comes out is on the GPU, in float32.

    In a process of its own: in one that had run other tests, torch asked for CUDA's driver.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(runs_on_a_gpu, variant, dtype).result()


def runs_on_a_gpu(variant: str, dtype: torch.dtype) -> None:
    del copies.STREAMS["cuda"]  # copies to a GPU that is only said to be there
    network = empty(variant).to_compute_dtype(dtype)
    width = VARIANTS[variant].clip.joint_width
    vocabulary = Vocabulary.of([f"thing {i}" for i in range(CLASSES)])
    with FakeTensorMode():
        to_cuda(network)
        assert network.device == CUDA
        predictions = network.predict(torch.empty(2, 3, *SHAPE, dtype=torch.uint8, device=CUDA))
        text = torch.empty(CLASSES, width, device=CUDA)
        probabilities = network.classify(predictions, vocabulary, text)
        picture = ClassifiedMasks(
            logits=predictions.mask_logits[0],
            image_size=(633, 951),
            probabilities=probabilities[0],
            labels=range(1, CLASSES + 1),
            least=[0.0] * CLASSES,
            output_size=(3000, 4000),
        )
        labels, confidence = _band_by_band(
            picture,
            torch.empty(CLASSES, dtype=torch.int16, device=CUDA),
            torch.empty(CLASSES, device=CUDA),
        )
    embeddings = [2, QUERIES, width], torch.float32, CUDA
    assert {name: facts(tensor) for name, tensor in predictions.tensors().items()} == {
        "mask_logits": ([2, QUERIES, 160, 240], torch.float32, CUDA),
        "supervised": embeddings,
        "mask_attention": embeddings,
        "frozen": embeddings,
    }
    assert [facts(own) for own in probabilities] == [([QUERIES, CLASSES], torch.float32, CUDA)] * 2
    assert facts(labels) == ([3000, 4000], torch.int16, CUDA)
    assert facts(confidence) == ([3000, 4000], torch.float32, CUDA)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["base", "large"])
def test_one_graph(variant: str) -> None:
    """`torch.compile` and `torch.export` find nothing that breaks it; test_forward.py computes by them."""
    network = empty(variant)
    images = torch.empty(1, 3, *SHAPE, dtype=torch.uint8, device="meta")
    sizes = torch.empty(1, 2, dtype=torch.int64, device="meta")
    with torch.no_grad():
        wanted = [facts(own) for own in network(images, sizes)]
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        assert [facts(own) for own in compiled(images, sizes)] == wanted
        program = torch.export.export(network, (images, sizes))
    outputs = [node.meta["val"] for node in program.graph.output_node().args[0]]
    assert [facts(own) for own in outputs] == wanted
