"""Copies to a device and back whose streams finish as late as they may."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model.network import copies
from model.network.copies import BUFFERS, Copies, copies_of, upload
from tests.pretended import LateStreams, counted, pretended_device

TYPES = (torch.float32, torch.uint8, torch.bool, torch.int64, torch.bfloat16)
CPU = torch.device("cpu")


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device() as found:
        yield found


def numbers(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (100 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))).to(dtype)


def test_there_and_back_without_a_wait_but_the_last(device: torch.device) -> None:
    """Of all types and sizes at once, nothing and other shapes among them."""
    sent = [numbers(count, count, dtype) for count, dtype in enumerate(TYPES)] + [torch.tensor(7.0)]
    with counted() as counts:
        there = copies_of(device).upload(sent)
        back = copies_of(device).download(there)
        assert counts.waits == []
        arrived = back.wait()
    assert len(counts.waits) == 1
    assert all(tensor.device == device for tensor in there)
    for own, found in zip(sent, arrived, strict=True):
        assert found.dtype == own.dtype
        assert found.device == CPU
        assert torch.equal(found, own)


def test_many_uploads_share_two_buffers(device: torch.device) -> None:
    """A buffer is filled anew while nothing of its last copy is made: it has to be waited for."""
    sent = [numbers(5000 * (1 + i % 3), i) for i in range(3 * BUFFERS)]
    with counted() as counts:
        there = [upload(tensor, device) for tensor in sent]
    assert counts.waits == []  # for copies, but not for what is computed
    for own, found in zip(sent, there, strict=True):
        assert torch.equal(found.cpu(), own)


def test_downloads_keep_what_was_computed_before(device: torch.device) -> None:
    """Also where several are under way, and their buffers serve again afterwards."""
    x = upload(numbers(4, 0), device)
    downloads = []
    for _ in range(5):
        downloads.append(copies_of(device).download([x, 2 * x]))
        x += 1
    for _ in range(2):  # asking twice is allowed
        for step, download in enumerate(downloads):
            plain, doubled = download.wait()
            assert torch.equal(plain, numbers(4, 0) + step)
            assert torch.equal(doubled, 2 * plain)
    first = downloads[0].wait()[0].clone()
    copies_of(device).download([torch.zeros_like(x)]).wait()
    assert torch.equal(downloads[0].wait()[0], first)


def test_settling_waits_once(device: torch.device) -> None:
    upload(numbers(2, 0), device)
    with counted() as counts:
        copies_of(device).settle()
    assert len(counts.waits) == 1
    copies_of(CPU).settle()


def test_what_is_there_stays(device: torch.device) -> None:
    x = torch.ones(3, device=device)
    away = numbers(2, 1)
    there = copies_of(device).upload([x, away, x])
    assert there[0] is x
    assert there[2] is x
    assert torch.equal(there[1].cpu(), away)


def test_a_cpu_copies_nothing() -> None:
    x = numbers(3, 0)
    assert upload(x, CPU) is x
    assert copies_of(CPU).download([x]).wait()[0] is x


def test_uploads_of_inference_mode_can_be_trained_with(device: torch.device) -> None:
    """And its buffers serve outside of it."""
    with torch.inference_mode():
        upload(numbers(3, 0), device)
    weight = torch.ones(3, 3, device=device, requires_grad=True)
    (upload(numbers(3, 1), device) @ weight).sum().backward()
    assert weight.grad is not None


class _Hasty(LateStreams):
    """Computing does not wait for uploads."""

    def compute_after(self, mark: object) -> None:
        pass


def test_a_missing_wait_would_be_seen(device: torch.device) -> None:
    x = numbers(3, 0)
    there = Copies(device, _Hasty).upload([x])[0]
    assert not torch.equal(there.cpu(), x)


def test_devices_have_one_set_of_streams(device: torch.device) -> None:
    assert copies_of(device) is copies_of(torch.device(device.type))
    assert copies_of(device) is copies._COPIES[device]
