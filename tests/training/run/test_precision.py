"""Number types by processor: where bfloat16 would be emulated, nothing is computed in it."""

from pathlib import Path

import pytest
import torch

from training.config import Amp
from training.recipes.recipe import Recipe
from training.run.precision import cpu_amp, quick_autocast


@pytest.mark.parametrize(
    ("processor", "amp"),
    [("AVX512", "bfloat16"), ("AVX512_VNNI", "bfloat16"), ("AVX2", "off"), ("DEFAULT", "off")],
)
def test_bfloat16_only_where_it_is_quick(processor: str, amp: Amp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    assert cpu_amp() == amp
    x = torch.ones(2, 2)
    with quick_autocast(torch.device("cpu")):
        product = x @ x
    assert product.dtype == (torch.float32 if amp == "off" else torch.bfloat16)
    assert Recipe().run(Path("data"), Path("init")).amp == amp
