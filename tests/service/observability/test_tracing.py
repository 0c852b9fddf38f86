"""Whether there are traces at all: settings, OpenTelemetry's variables, and the extra."""

import logging
import subprocess
import sys

import pytest

from service.observability.tracing import tracing_of
from service.settings import Settings, SettingsError
from tests.waiting import WAIT

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.observability.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)


@pytest.mark.usefixtures("without_the_extra")
def test_the_extra_is_named_where_it_is_missing() -> None:
    with pytest.raises(SettingsError, match=r"opentelemetry.*pip install 'ebseg\[otlp\]'"):
        tracing_of(Settings(otlp_endpoint="http://localhost:4318"))


@pytest.mark.usefixtures("without_the_extra")
def test_a_platforms_variable_alone_does_not_stop_the_service(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://localhost:4318")
    with caplog.at_level(logging.WARNING):
        assert tracing_of(Settings()) is None
    assert f"no traces are sent: {ENDPOINT}" in caplog.text
    assert "pip install 'ebseg[otlp]'" in caplog.text


@pytest.mark.parametrize(
    ("variables", "there"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "True", ENDPOINT: "http://c:4318"}, False),
        ({ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({"OTEL_SERVICE_NAME": "pictures", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_who_asks_for_traces(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], there: bool) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (tracing_of(Settings()) is not None) is there


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        ({ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf only.*4318"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "http/json"),
    ],
)
def test_what_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence):
        tracing_of(Settings())


def test_without_a_collector_nothing_of_it_is_imported() -> None:
    """But for what FastAPI imports itself, where it finds it."""
    code = """
import sys
from service.app import create_app
from service.settings import Settings
create_app(Settings())
ours = ("opentelemetry.exporter", "opentelemetry.instrumentation", "service.observability.otlp")
print([name for name in sys.modules if name.startswith(ours)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, check=True
    )
    assert done.stdout.strip() == "[]"
