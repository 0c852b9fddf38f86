"""`ebseg serve` whose devices hang or are slow when files say so.

    python -m tests.load.faulty FOLDER --registry ... (flags of `ebseg serve`)

While `FOLDER/hang` is there, `predict` does not end. If there is `FOLDER/slow-N`, that of version N takes so
many times as long as that file says. All else is the service as it is.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from service.app import create_app
from service.commands.flags import add_settings, given_settings
from service.hot_loading.loader import LoadEngine
from service.observability.logging import configure
from service.scheduling.engine import Engine, PreparedPicture
from service.scheduling.torch_engine import load_engine
from service.server import run_server
from service.settings import load_settings

PAUSE_S = 0.05  # between two looks whether it hangs still


class Faults:
    """The files, from the side that makes them.

    Args:
        folder: that they lie in.
    """

    def __init__(self, folder: Path):
        folder.mkdir(exist_ok=True)
        self.folder = folder

    @property
    def hang(self) -> Path:
        """Devices hang while it is there."""
        return self.folder / "hang"

    def slow(self, version: int) -> Path:
        """Holds how many times as long a version takes."""
        return self.folder / f"slow-{version}"


class FaultyEngine:
    """An engine with faults in its `predict`.

    Args:
        engine: that does the work.
        faults: what is wrong with it.
    """

    def __init__(self, engine: Engine, faults: Faults):
        self._engine = engine
        self._faults = faults
        self._slow = faults.slow(engine.info.version)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Any]:
        """As of the engine, but for the faults."""
        began = time.monotonic()
        made = self._engine.predict(prepared)
        if self._slow.exists():
            time.sleep((float(self._slow.read_text()) - 1) * (time.monotonic() - began))
        while self._faults.hang.exists():
            time.sleep(PAUSE_S)
        return made


def loader(faults: Faults) -> LoadEngine:
    """Loads engines with faults."""

    def load(folder: Path, *, device: str, dtype: str, verify_digests: bool) -> Engine:
        engine = load_engine(folder, device=device, dtype=dtype, verify_digests=verify_digests)
        return cast(Engine, FaultyEngine(engine, faults))

    return load


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    add_settings(parser)
    args = parser.parse_args()
    settings = load_settings(given_settings(args))
    configure(settings.log_level, settings.log_format)
    run_server(create_app(settings, load=loader(Faults(args.folder))), settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
