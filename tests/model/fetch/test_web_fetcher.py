"""Files at web addresses: gone on with only if they are the same still; secrets stay where they belong."""

import hashlib
from pathlib import Path

import pytest

from model.errors import FetchError, UnreachableError
from model.fetch.sources import HubFile, LocalFile, WebFile, parse_source
from tests.hub.faults import Fault
from tests.hub.repositories import Page
from tests.hub.server import Hub
from tests.model.fetch.watching import Watch, fetched


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "served"
    path.write_bytes(content)
    return path


def ranges(hub: Hub) -> list[str | None]:
    return [request.range for request in hub.requests if request.method == "GET"]


@pytest.mark.parametrize("validator", [{"ETag": '"one"'}, {"Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}])
def test_it_goes_on_and_comes_once(
    hub: Hub, watch: Watch, file: Path, content: bytes, validator: dict[str, str]
) -> None:
    hub.pages["w.pth"] = Page(file, validator)
    url = f"{hub.url}/web/w.pth"
    hub.faults.add(Fault("GET", times=1, cut_after=1_000_000))
    hub.faults.add(Fault("GET", times=4, status=503))
    with pytest.raises(UnreachableError, match="kept, start again to go on"):
        fetched(watch.of_web(url))
    assert watch.of_web(url).find().here == 1_000_000
    assert fetched(watch.of_web(url)) == (content, len(content) - 1_000_000)
    assert ranges(hub)[-1] == "bytes=1000000-"
    asked = len(ranges(hub))
    assert fetched(watch.of_web(url)) == (content, 0)
    assert len(ranges(hub)) == asked


def test_a_changed_file_begins_anew(hub: Hub, watch: Watch, file: Path, content: bytes) -> None:
    url = f"{hub.url}/web/w.pth"
    hub.pages["w.pth"] = Page(file, {"ETag": '"one"'})
    hub.faults.add(Fault("GET", times=1, cut_after=1_000_000))
    hub.faults.add(Fault("GET", times=4, status=503))
    with pytest.raises(UnreachableError):
        fetched(watch.of_web(url))
    file.write_bytes(content[::-1])
    hub.pages["w.pth"] = Page(file, {"ETag": '"two"'})
    assert watch.of_web(url).find().here == 0
    assert fetched(watch.of_web(url)) == (content[::-1], len(content))
    file.write_bytes(content)
    hub.pages["w.pth"] = Page(file, {"ETag": '"three"'})
    assert fetched(watch.of_web(url)) == (content, len(content))


def test_a_file_that_changes_meanwhile_begins_anew(
    hub: Hub, watch: Watch, file: Path, content: bytes
) -> None:
    url = f"{hub.url}/web/w.pth"
    hub.pages["w.pth"] = Page(file, {"ETag": '"one"'})
    fetcher = watch.of_web(url)
    found = fetcher.find()
    file.write_bytes(content[::-1])
    hub.pages["w.pth"] = Page(file, {"ETag": '"two"'})
    with fetcher.fetched(found) as whole:
        assert whole.path.read_bytes() == content[::-1]
    assert any("the file has changed on its server" in line for line in watch.lines)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_without_a_validator_nothing_is_gone_on_with(
    hub: Hub, watch: Watch, file: Path, content: bytes, headers: dict[str, str]
) -> None:
    url = f"{hub.url}/web/w.pth"
    hub.pages["w.pth"] = Page(file, headers)
    hub.faults.add(Fault("GET", times=1, cut_after=1_000_000))
    assert fetched(watch.of_web(url)) == (content, len(content) + 1_000_000)
    assert ranges(hub) == [None, None]
    # but with a digest, which will tell
    digest = hashlib.sha256(content).hexdigest()
    hub.pages["v.pth"] = hub.pages["w.pth"]
    hub.faults.add(Fault("GET", times=1, cut_after=1_000_000))
    assert fetched(watch.of_web(f"{hub.url}/web/v.pth", digest)) == (content, len(content))
    assert ranges(hub)[-1] == "bytes=1000000-"


def test_a_server_that_knows_get_only(hub: Hub, watch: Watch, file: Path, content: bytes) -> None:
    hub.pages["w.pth"] = Page(file, {"ETag": '"one"'}, get_only=True)
    assert fetched(watch.of_web(f"{hub.url}/web/w.pth?signature=secret")) == (content, len(content))
    assert ranges(hub) == ["bytes=0-0", None]


def test_user_and_password_stay_with_their_host(hub: Hub, watch: Watch, file: Path, content: bytes) -> None:
    hub.pages["w.pth"] = Page(file, {"ETag": '"one"'}, user="me:p@ss")
    here = hub.url.removeprefix("http://")
    with pytest.raises(FetchError, match="answers 401: it wants a user and password"):
        fetched(watch.of_web(f"{hub.url}/web/w.pth"))
    assert fetched(watch.of_web(f"http://me:p%40ss@{here}/web/w.pth")) == (content, len(content))
    hub.faults.add(Fault("/web/", times=1, location="{cdn}{path}"))
    hub.requests.clear()
    with pytest.raises(FetchError, match="answers 401"):
        fetched(watch.of_web(f"http://me:p%40ss@{here}/web/w.pth?token=hidden"))
    assert {request.token for request in hub.requests if request.host == "cdn"} == {None}
    assert not any(secret in line for line in watch.lines for secret in ("p%40ss", "p@ss", "hidden"))


def test_redirects_have_an_end(hub: Hub, watch: Watch) -> None:
    hub.faults.add(Fault("/web/", location="{hub}{path}"))
    with pytest.raises(FetchError, match="leads on and on, 10 times are enough"):
        watch.of_web(f"{hub.url}/web/w.pth").find()
    assert len(hub.requests) == 11


def test_a_page_is_no_file(hub: Hub, watch: Watch, file: Path) -> None:
    hub.pages["w.pth"] = Page(file, {"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(FetchError, match="is a page, not a file"):
        watch.of_web(f"{hub.url}/web/w.pth").find()


@pytest.mark.parametrize(
    ("status", "words"), [(404, "no such file"), (403, "may have expired"), (418, "418")]
)
def test_refusals(hub: Hub, watch: Watch, status: int, words: str) -> None:
    hub.faults.add(Fault("", status=status))
    with pytest.raises(FetchError, match=words) as failure:
        watch.of_web(f"{hub.url}/web/w.pth?key=hidden").find()
    assert "hidden" not in str(failure.value)


def test_without_a_network_what_was_fetched_is_taken(
    hub: Hub, watch: Watch, file: Path, content: bytes
) -> None:
    hub.pages["w.pth"] = Page(file, {"ETag": '"one"'})
    url = f"{hub.url}/web/w.pth"
    fetched(watch.of_web(url))
    hub.faults.add(Fault("", status=503))
    assert fetched(watch.of_web(url)) == (content, 0)
    assert "was fetched before, that file is taken" in watch.lines[-1]


def test_what_sources_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = HubFile("slonetime/EBSeg", "main", "EBSeg_base.pth")
    site = "https://huggingface.co/slonetime/EBSeg"
    for text in (
        "base",
        "ebseg-base",
        f"{site}/blob/main/EBSeg_base.pth",
        f"{site}/resolve/main/EBSeg_base.pth",
    ):
        assert parse_source(text) == base
    assert parse_source("hf://a/b@refs/pr/3/c/d.pth") == HubFile("a/b", "refs/pr/3", "c/d.pth")
    assert str(parse_source("hf://a/b@v2/c.pth")) == "hf://a/b@v2/c.pth"
    secret = parse_source("https://me:word@example.com:8443/x/y.pth?token=hidden#part")
    assert isinstance(secret, WebFile)
    assert (str(secret), secret.name) == ("https://example.com:8443/x/y.pth", "y.pth")
    monkeypatch.chdir(tmp_path)
    Path("EBSeg_base.pth").write_bytes(b"")
    assert parse_source("EBSeg_base.pth") == LocalFile(Path("EBSeg_base.pth"))
    assert isinstance(parse_source("http://example.com/x", "0" * 64), WebFile)
    for wrong in (
        "hf://a/b",
        "hf://datasets/a/b/c",
        "hf://a/b/../c",
        "hf://a/b@../c/d",
        "ftp://a/b",
        "https://[",
        "",
    ):
        with pytest.raises(FetchError):
            parse_source(wrong)
