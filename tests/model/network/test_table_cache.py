"""What is kept for a size: whom it belongs to, what ends it, and who may ask at the same time."""

import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode

from model import EBSeg, EBSegConfig
from model.network.build import build
from model.network.layers import SineEncoding
from model.network.sam_encoder import SamEncoder
from model.network.table_cache import SIZES_KEPT, TableCache
from tests.golden.weights import picture
from tests.model.network.test_tables import difference, kept

CPU = torch.device("cpu")


def view(size: tuple[int, int] = (70, 93)) -> Tensor:
    return picture(*size, 0.25)[None]


@pytest.fixture
def ebseg(uneven: EBSeg) -> EBSeg:
    """A model that keeps tables of one size."""
    own = copy.deepcopy(uneven)
    own.predict(view())
    assert kept(own) >= 6
    return own


def _positions(ebseg: EBSeg) -> Tensor:
    assert isinstance(ebseg.backbone, SamEncoder)
    [entry] = ebseg.backbone._tables._kept.values()
    positions: Tensor = entry.tables[0]
    return positions


def table_of(cache: TableCache, parameter: Tensor) -> Tensor:
    with torch.no_grad():
        return cache.get("size", lambda: parameter + 0, parameter)


def test_a_move_ends_all_tables(ebseg: EBSeg) -> None:
    assert kept(ebseg.to("meta")) == 0


def test_a_part_in_another_type_ends_its_own_tables(ebseg: EBSeg) -> None:
    before = kept(ebseg)
    ebseg.clip_image.to(torch.float64)
    assert kept(ebseg) == before - 1


def test_tables_are_freed_with_their_owner(ebseg: EBSeg) -> None:
    """A version that is unloaded must not leave its tables behind."""
    table = weakref.ref(_positions(ebseg))
    assert table() is not None
    del ebseg.backbone
    gc.collect()
    assert table() is None


def test_a_copy_begins_without_tables(ebseg: EBSeg) -> None:
    before = ebseg.predict(view())
    for other in (copy.deepcopy(ebseg), pickle.loads(pickle.dumps(ebseg))):
        assert kept(other) == 0
        assert difference(other.predict(view()), before) == 0
        assert kept(other) == kept(ebseg)


def test_tables_are_no_part_of_the_state(ebseg: EBSeg, uneven_config: EBSegConfig) -> None:
    empty = build(uneven_config, ebseg.training_classes, seed=None)
    assert kept(empty) == 0
    assert ebseg.state_dict().keys() == empty.state_dict().keys()


def test_a_model_that_stood_in_a_trace_computes_on(ebseg: EBSeg) -> None:
    """Tensors that stand for others while torch traces are worth nothing afterwards."""
    before = ebseg.predict(view())
    ebseg.to(CPU)
    assert kept(ebseg) == 0
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert isinstance(ebseg(view())[0], FakeTensor)
    assert kept(ebseg) == 0
    assert difference(ebseg.predict(view()), before) == 0


def test_threads_share_the_tables(ebseg: EBSeg) -> None:
    """Many sizes from four threads at once, while another one drops what is kept."""
    sizes = [(32 * (1 + i), 32 * (4 - i)) for i in range(4)] * 3
    wanted = {size: ebseg.predict(view(size)) for size in sizes}
    done = threading.Event()

    def drop() -> None:
        while not done.is_set():
            for module in ebseg.modules():
                if isinstance(module, TableCache):
                    module.forget()

    dropping = threading.Thread(target=drop)
    dropping.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda size: ebseg.predict(view(size)), sizes))
    finally:
        done.set()
        dropping.join()
    assert [difference(own, wanted[size]) for own, size in zip(found, sizes, strict=True)] == [0] * len(sizes)


def test_a_parameter_in_the_memory_of_an_earlier_one() -> None:
    """The address of freed memory, and a count of writes that starts at 0 again, tell nothing."""
    cache = TableCache()
    parameter = torch.zeros(1000)
    address = parameter.data_ptr()
    assert table_of(cache, parameter)[0] == 0
    del parameter
    others = [torch.ones(1000)]
    while others[-1].data_ptr() != address and len(others) < 100:
        others.append(torch.ones(1000))
    assert table_of(cache, others[-1])[0] == 1


def test_a_write_while_a_table_is_made() -> None:
    """What was read before the write must not be taken for what comes after it."""
    cache, parameter = TableCache(), torch.zeros(1)

    def make() -> Tensor:
        table = parameter + 0
        parameter.add_(1)
        return table

    with torch.no_grad():
        assert cache.get("size", make, parameter).item() == 0
    assert table_of(cache, parameter).item() == 1


def test_many_sizes_do_not_pile_up() -> None:
    cache = TableCache()
    made: list[int] = []

    def ask(size: int) -> None:
        def make() -> Tensor:
            made.append(size)
            return torch.zeros(1)

        cache.get(size, make)

    for size in range(200):
        ask(size)
    assert made == list(range(200))
    assert len(cache) == SIZES_KEPT
    ask(199)
    assert made == list(range(200))
    ask(0)
    assert made == [*range(200), 0]


def test_that_there_is_nothing_to_add_is_kept_as_well() -> None:
    """Swin's windows have no mask where nothing is shifted."""
    cache = TableCache()
    made: list[int] = []
    assert [cache.get("size", lambda: made.append(1)) for _ in range(3)] == [None] * 3
    assert made == [1]


def test_encoding_is_kept_and_can_be_trained_through() -> None:
    encoding = SineEncoding(8)
    with torch.inference_mode():
        table = encoding((5, 7), CPU)
    assert encoding((5, 7), CPU) is table
    weight = torch.ones(8, requires_grad=True)
    (table * weight).sum().backward()
    assert weight.grad is not None
