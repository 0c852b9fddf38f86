"""The pretended accelerator itself: what it refuses, what it counts, and how late its copies are."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from model.network.copies import copies_of
from tests.pretended import NONSENSE, LateStreams, counted, pretended_device


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device() as found:
        yield found


@pytest.mark.parametrize(
    ("act", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 3], 1),
        (lambda x: bool((x > 3).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: torch.tensor([1, 2], device=x.device), 1),
        (lambda x: torch.ones(3).to(x.device), 1),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), 0),
        (lambda x: torch.ones(2**20).to(x.device, non_blocking=True), 1),  # not pinned: the driver waits
        (lambda x: x[torch.zeros(2, dtype=torch.long, device=x.device)], 0),
        (lambda x: torch.where(x > 3, x, 0) @ x.T, 0),
        (lambda x: torch.zeros(3, device=x.device), 0),
        (lambda x: x.to(torch.float16).view(-1), 0),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_what_the_host_waits_for(
    act: Callable[[Tensor], object], waits: int, inference: bool, device: torch.device
) -> None:
    with torch.inference_mode(inference):
        x = torch.arange(12.0).view(3, 4).to(device)
        with counted() as counts:
            act(x)
    assert len(counts.waits) == waits, counts


def test_a_wait_names_the_line_that_made_it(device: torch.device) -> None:
    x = torch.ones(3, device=device)
    with counted() as counts:
        x.max().item()
    assert [wait.partition(":")[0] for wait in counts.waits] == ["tests/test_pretended.py"]
    with counted() as counts:
        copies_of(device).download([x]).wait()
    assert len(counts.waits) == 1


def test_devices_do_not_mix(device: torch.device) -> None:
    here = torch.ones(3, device=device)
    with pytest.raises(RuntimeError, match="same device"):
        here + torch.ones(3)
    assert (here + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a single number may come from the host


def test_gradients_are_the_hosts(device: torch.device) -> None:
    layer = nn.Linear(4, 2)
    layer(torch.ones(3, 4)).pow(2).mean().backward()
    assert layer.weight.grad is not None
    wanted = layer.weight.grad.clone()
    layer.zero_grad()
    layer.to(device)(torch.ones(3, 4, device=device)).pow(2).mean().backward()
    assert layer.weight.grad.device == device
    assert torch.equal(layer.weight.grad.cpu(), wanted)


def test_copies_are_late(device: torch.device) -> None:
    streams = LateStreams(device)
    target, source = streams.empty(4), streams.pinned(4)
    source.fill_(1)
    streams.copy(target, source)
    mark = streams.mark()
    assert target.tolist() == [NONSENSE] * 4
    source.fill_(2)  # too early: the copy has not been made
    mark.wait()
    assert target.tolist() == [2] * 4


def test_a_copy_that_does_not_wait_for_computing_brings_nonsense(device: torch.device) -> None:
    streams = LateStreams(device)
    target, source = streams.pinned(4), torch.ones(4, dtype=torch.uint8, device=device)
    streams.copy(target, source)
    streams.mark().wait()
    assert target.tolist() == [NONSENSE] * 4
    streams.copy_after_compute()
    streams.copy(target, source)
    streams.mark().wait()
    assert target.tolist() == [1] * 4
