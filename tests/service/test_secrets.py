"""What commands and the service print, looked through for secrets that were in URLs."""

from pathlib import Path

import pytest

import ebseg
from service.observability.logging import configure
from service.options import OPTIONS
from service.settings import SettingsError
from tests.service.fakes import post, running
from tests.service.hot_loading.model_fakes import Loader, loads
from tests.waiting import until

CANARY = "c4n4ry"
# each form that a secret has in a URL; the port of the discard protocol, where nobody listens
FORMS = [
    f"{CANARY}:{CANARY}@127.0.0.1:9/{{path}}",
    f"user:{CANARY}@127.0.0.1:9/{{path}}?X-Amz-Signature={CANARY}&token={CANARY}",
    f"127.0.0.1:9/{{path}}?sig={CANARY}&password={CANARY}#{CANARY}",
    f"user:{CANARY}/{CANARY}@127.0.0.1:9/{{path}}",
    f"user:{CANARY}#{CANARY}?{CANARY}@127.0.0.1:nine/{{path}}",
]
COMMANDS = {
    "serve": ["serve", "--registry", "http://{url}", "--model", "a", "--port", "-1"],
    "redis": ["serve", "--redis-url", "redis://{url}", "--port", "-1"],
    "otlp": ["serve", "--otlp-endpoint", "http://{url}", "--port", "-1"],
    "buckets": ["serve", "--url-buckets", "s3://{url}", "--port", "-1"],
    "hosts": ["serve", "--url-hosts", "http://{url}", "--port", "-1"],
    "print": ["serve", "--print-config", "--redis-url", "redis://{url}", "--otlp-endpoint", "http://{url}"],
    "registry": ["serve", "--print-config", "--registry", "http://{url}", "--model", "a"],
    "typo": ["serve", "--redis-ulr", "redis://{url}"],
    "segment": ["segment", "samples/village.jpg", "--classes", "sky", "--url", "http://{url}"],
    "models": ["models", "list", "--url", "http://{url}"],
    "vocabularies": ["vocabularies", "list", "--url", "http://{url}"],
    "bench": ["bench", "service", "--url", "http://{url}", "--seconds", "1"],
    "pull": ["pull", "https://{url}"],
    "pulled": ["pull", "http://{url}"],
    "inspect": ["inspect", "http://{url}"],
    "publish": ["publish", "nothing", "http://{url}"],
    "debug": ["--debug", "pull", "https://{url}"],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_a_secret(
    command: str, form: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary is found nowhere, and the command says something all the same."""
    monkeypatch.chdir(Path(ebseg.__file__).parent)
    words = [word.format(url=form.format(path="a/v1")) for word in COMMANDS[command]]
    code = ebseg.main(words)
    printed = capfd.readouterr()
    assert printed.out or printed.err
    assert CANARY not in printed.out + printed.err
    assert code in (0, 1, 2)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_log_line_and_no_route_has_a_secret(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Redis and the collector are away, so their addresses are in many errors."""
    configure("debug", form)
    redis, collector = (FORMS[n].format(path="0") for n in (0, 1))
    async with running(redis_url=f"redis://{redis}", otlp_endpoint=f"http://{collector}") as (client, _):
        assert (await post(client)).status_code == 200
        printed = [
            (await client.get(path)).text
            for path in ("/v1/models", "/livez", "/readyz", "/startupz", "/metrics", "/openapi.json")
        ]
    logged = capfd.readouterr().err
    assert "request" in logged
    assert "Failed to export" in logged or "Transient error" in logged
    assert CANARY not in logged + "".join(printed)


@pytest.mark.anyio
@pytest.mark.parametrize("form", FORMS)
async def test_a_registry_that_is_away_is_told_without_its_secrets(
    form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The service waits for it, and says so; an address that nobody can read is refused."""
    configure("debug", "json")
    registry = f"http://{form.format(path='a/v1')}"
    printed = []
    try:
        async with running(load=Loader(), ready=False, registry=registry, model="a", device="cpu") as (
            client,
            service,
        ):
            await until(lambda: loads(service.metrics).get("failed", 0) > 0 or service.failure is not None)
            printed += [
                (await client.get(path)).text for path in ("/v1/models", "/livez", "/readyz", "/startupz")
            ]
    except SettingsError as error:
        printed.append(str(error))
    printed.append(capfd.readouterr().err)
    assert "registry" in printed[-1] + printed[0]
    assert CANARY not in "".join(printed)


def test_every_setting_that_may_be_a_url_is_looked_at() -> None:
    """A setting whose help shows a URL has to be in the list above."""
    with_urls = {name for name, printed in OPTIONS.items() if "://" in printed}
    tried = {word.removeprefix("--").replace("-", "_") for words in COMMANDS.values() for word in words}
    assert with_urls <= tried
    assert with_urls == {"registry", "redis_url", "otlp_endpoint", "url_buckets"}
