from pathlib import Path

import pytest

from service.hot_loading import loader
from tests.model.checkpoints import make, write


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """New versions are warmed with pictures of 8 pixels a side."""
    monkeypatch.setattr(loader, "USUAL_PICTURES", ((8, 8),))


@pytest.fixture(scope="package")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two different models."""
    folders = [tmp_path_factory.mktemp("saved") / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        write(make(seed, reads=True), folder)
    return folders[0], folders[1]
