"""Starting and giving up."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError
from model.storage import packaged
from service.app import create_app
from service.server import listen, run_server
from service.settings import SettingsError
from tests.service.fakes import FakeEngine, settings


@pytest.mark.parametrize(
    ("error", "in_words"),
    [
        (CheckpointError("weights are damaged"), True),
        (SettingsError("padding: few is of use on a GPU"), True),
        (OSError(5, "Input/output error"), True),
        (KeyError("a fault of ours"), False),
    ],
)
def test_a_model_that_cannot_be_loaded_stops_the_server(
    error: Exception, in_words: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def load(folder: Path, **options: Any) -> FakeEngine:
        raise error

    own = settings()
    with pytest.raises(type(error), match=re.escape(str(error))):
        run_server(create_app(own, load=load), own)
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert told.message == "the model could not be loaded"
    assert (told.exc_info is None) == in_words  # a traceback is for faults of ours alone


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {port}: Address already"):
            listen("127.0.0.1", port)


def test_addresses() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[1] > 0
    with pytest.raises(SettingsError, match=r"cannot listen on 203\.0\.113\.7 port 0"):
        listen("203.0.113.7", 0)


def test_an_app_needs_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path)
    own = settings()
    with pytest.raises(CheckpointError, match="comes with ebseg is missing"):
        run_server(create_app(own), own)
