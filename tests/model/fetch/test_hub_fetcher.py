"""Files of the hub: fetched once, gone on with, refused in words."""

import hashlib
import socket
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from model.errors import FetchError, UnreachableError
from model.fetch.transfer import Patience
from tests.hub.faults import GATE, Fault, too_many
from tests.hub.server import READ, Hub
from tests.model.fetch.watching import FILE, REPOSITORY, Watch, blobs, fetched


def ranges(hub: Hub) -> list[str | None]:
    return [request.range for request in hub.requests if request.host == "cdn"]


def test_a_file_comes_once_and_others_find_it(hub: Hub, watch: Watch, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    fetcher = watch.of_hub()
    found = fetcher.find()
    assert (found.size, found.here, found.whole, found.sha256) == (len(content), 0, None, digest)
    with fetcher.fetched(found) as file:
        commit = hub.repositories.find(REPOSITORY).branches["main"].oid  # type: ignore[union-attr]
        assert (file.sha256, file.received) == (digest, len(content))
        assert file.source == f"hf://{REPOSITORY}@{commit}/{FILE}"
    assert fetched(watch.of_hub()) == (content, 0)
    assert fetched(watch.of_hub(commit)) == (content, 0)
    assert Path(hf_hub_download(REPOSITORY, FILE)).read_bytes() == content
    assert hub.sent("/cdn/") == len(content)
    assert blobs() == {digest: len(content)}
    assert watch.lines == []
    assert watch.steps[-1][1:] == (len(content), len(content))


def test_what_another_tool_fetched_is_taken(hub: Hub, watch: Watch, content: bytes) -> None:
    hf_hub_download(REPOSITORY, FILE)
    assert fetched(watch.of_hub()) == (content, 0)
    assert hub.sent("/cdn/") == len(content)


@pytest.mark.parametrize("cuts", [(0,), (1,), (1_048_576,), (2_999_999,), (700_000, 1_300_000, 5)])
def test_a_cut_connection_goes_on_at_its_byte(
    hub: Hub, watch: Watch, content: bytes, cuts: tuple[int, ...]
) -> None:
    for cut in cuts:
        hub.faults.add(Fault("GET /cdn", times=1, cut_after=cut))
    assert fetched(watch.of_hub()) == (content, len(content))
    assert hub.sent("/cdn/") == len(content)
    assert len(watch.lines) == len(cuts)
    assert all("the connection was cut" in line for line in watch.lines)


def test_a_partial_file_of_another_run_is_gone_on_with(hub: Hub, watch: Watch, content: bytes) -> None:
    hub.faults.add(Fault("GET /cdn", cut_after=1_000_000, times=1))
    hub.faults.add(Fault("GET /cdn", status=503, times=4))
    with pytest.raises(UnreachableError, match="kept, start again to go on"):
        fetched(watch.of_hub())
    digest = hashlib.sha256(content).hexdigest()
    assert blobs() == {f"{digest}.incomplete": 1_000_000}
    assert watch.of_hub().find().here == 1_000_000
    assert fetched(watch.of_hub()) == (content, len(content) - 1_000_000)
    assert ranges(hub)[-1] == "bytes=1000000-"
    assert hub.sent("/cdn/") == len(content) + 4 * len(b'{"error": "as the test wants it"}')


def test_a_server_without_ranges_begins_anew(hub: Hub, watch: Watch, content: bytes) -> None:
    hub.faults.add(Fault("GET /cdn", times=1, cut_after=600_000))
    hub.faults.add(Fault("GET /cdn", no_ranges=True))
    assert fetched(watch.of_hub()) == (content, len(content) + 600_000)
    assert any("begins anew" in line for line in watch.lines)


def test_a_partial_file_that_is_too_long_is_no_part(hub: Hub, watch: Watch, content: bytes) -> None:
    hub.faults.add(Fault("GET /cdn", status=503, times=4))
    with pytest.raises(UnreachableError):
        fetched(watch.of_hub())
    digest = hashlib.sha256(content).hexdigest()
    folder = Path(constants.HF_HUB_CACHE) / "models--slonetime--EBSeg" / "blobs"
    (folder / f"{digest}.incomplete").write_bytes(content + b"more")
    assert fetched(watch.of_hub()) == (content, len(content))


def test_wrong_bytes_are_thrown_away(hub: Hub, watch: Watch, content: bytes) -> None:
    wrong = hub.faults.during(Fault("GET /cdn", wrong_bytes=True))
    with wrong, pytest.raises(FetchError, match="thrown away, start again"):
        fetched(watch.of_hub())
    assert blobs() == {}
    assert fetched(watch.of_hub()) == (content, len(content))


def test_a_damaged_file_in_the_cache_is_thrown_away(hub: Hub, watch: Watch, content: bytes) -> None:
    fetched(watch.of_hub())
    digest = hashlib.sha256(content).hexdigest()
    blob = Path(constants.HF_HUB_CACHE) / "models--slonetime--EBSeg" / "blobs" / digest
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FetchError, match=f"its server tells {digest}; it was thrown away"):
        fetched(watch.of_hub())
    assert fetched(watch.of_hub()) == (content, len(content))


def test_a_file_that_is_longer_than_told_is_refused(hub: Hub, watch: Watch, content: bytes) -> None:
    hub.faults.add(Fault("HEAD", size=len(content) - 1))
    with pytest.raises(UnreachableError, match="the file has changed on its server"):
        fetched(watch.of_hub())


def test_a_moved_branch_is_noticed(hub: Hub, watch: Watch, content: bytes) -> None:
    assert fetched(watch.of_hub()) == (content, len(content))
    hub.repositories.add(REPOSITORY, {FILE: content[::-1]})
    assert fetched(watch.of_hub()) == (content[::-1], len(content))


def test_busy_servers_are_waited_for(hub: Hub, watch: Watch, content: bytes) -> None:
    hub.faults.add(too_many(1, on="HEAD"))
    hub.faults.add(Fault("HEAD", status=502, times=2))
    hub.faults.add(too_many(1, on="GET /cdn"))
    hub.faults.add(Fault("GET /cdn", status=500, times=2))
    assert fetched(watch.of_hub()) == (content, len(content))
    waits = [line.rpartition("going on in ")[2] for line in watch.lines]
    assert waits == ["1 s", "0.01 s", "0.02 s"] * 2


@pytest.mark.parametrize("seconds", [3, 86_400])
def test_nobody_waits_for_ever(hub: Hub, watch: Watch, seconds: int) -> None:
    hub.faults.add(too_many(seconds, on="HEAD", times=None))
    with pytest.raises(UnreachableError, match=f"answers 429 for another {seconds} s"):
        watch.of_hub().find()


def test_a_server_that_stays_busy_is_given_up(hub: Hub, watch: Watch) -> None:
    hub.faults.add(Fault("HEAD", status=503))
    with pytest.raises(UnreachableError, match="answers 503"):
        watch.of_hub().find()
    assert len(hub.requests) == 4


def test_refusals_say_what_to_do(hub: Hub, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "has no revision v9: see": watch.of_hub(revision="v9"),
        "has no file other.pth at revision main: see": watch.of_hub(path="other.pth"),
        "there is no nobody/nothing at": watch.of_hub(repository="nobody/nothing"),
    }
    for words, fetcher in cases.items():
        with pytest.raises(FetchError, match=words):
            fetcher.find()
    hub.faults.add(Fault("HEAD", times=1, status=403, headers=GATE))
    with pytest.raises(FetchError, match=f"is gated: accept its terms at {hub.url}/{REPOSITORY}, then give"):
        watch.of_hub().find()
    hub.faults.add(Fault("HEAD", times=1, status=403))
    with pytest.raises(FetchError, match="your token may not read"):
        watch.of_hub().find()
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    with pytest.raises(FetchError, match="does not know your token"):
        watch.of_hub().find()


def test_a_token_stays_with_the_hub(hub: Hub, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories.find(REPOSITORY).private = True  # type: ignore[union-attr]
    with pytest.raises(FetchError, match="or it is private: then give a token"):
        watch.of_hub().find()
    monkeypatch.setenv("HF_TOKEN", READ)
    fetched(watch.of_hub())
    assert {(request.host, request.token) for request in hub.requests[1:]} == {("hub", READ), ("cdn", None)}


def test_something_that_is_no_hub(hub: Hub, watch: Watch) -> None:
    hub.faults.add(Fault("HEAD", status=200, headers={"ETag": '"1"'}))
    with pytest.raises(FetchError, match="does not answer as a hub does"):
        watch.of_hub().find()


@pytest.mark.parametrize(("digest", "commit"), [("../../x", "a" * 40), ("a" * 64, "../../x"), ("..", "a")])
def test_a_hub_cannot_choose_paths(hub: Hub, watch: Watch, digest: str, commit: str) -> None:
    headers = {"ETag": f'"{digest}"', "X-Repo-Commit": commit, "Content-Length": "0"}
    hub.faults.add(Fault("HEAD", status=200, headers=headers))
    with pytest.raises(FetchError, match="does not answer as a hub does"):
        watch.of_hub().find()


def test_without_a_network_the_cache_serves(
    hub: Hub, watch: Watch, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        fetched(watch.of_hub())
        monkeypatch.setattr(constants, "ENDPOINT", closed)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}"
        )
        assert fetched(watch.of_hub()) == (content, 0)
        assert "it refuses the connection" in watch.lines[0]
        with pytest.raises(UnreachableError, match="cannot be reached: it refuses the connection"):
            watch.of_hub(path="other.pth").find()


def test_offline_by_wish(hub: Hub, watch: Watch, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(watch.of_hub())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert fetched(watch.of_hub()) == (content, 0)
    with pytest.raises(UnreachableError, match=r"HF_HUB_OFFLINE is set, and hf://.*/x.pth is not in"):
        watch.of_hub(path="x.pth").find()
    assert len(hub.requests) == asked


def test_silence_has_an_end(hub: Hub, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    hub.faults.add(Fault("HEAD", wait=30))
    with pytest.raises(UnreachableError, match="does not answer: no network, or a firewall"):
        watch.of_hub(patience=Patience(answer=0.2)).find()


def test_two_at_once_fetch_it_once(hub: Hub, content: bytes) -> None:
    hub.faults.add(Fault("GET /cdn", bytes_per_second=6e6))
    watches = [Watch(), Watch()]
    found: list[tuple[bytes, int]] = []
    threads = [threading.Thread(target=lambda w=w: found.append(fetched(w.of_hub()))) for w in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(received for _, received in found) == [0, len(content)]
    assert {got for got, _ in found} == {content}
    assert hub.sent("/cdn/") == len(content)
    assert sum("another process fetches it just now" in line for w in watches for line in w.lines) == 1


def test_try_to_load_finds_the_revision(hub: Hub, watch: Watch) -> None:
    fetched(watch.of_hub())
    assert isinstance(try_to_load_from_cache(REPOSITORY, FILE, revision="main"), str)
