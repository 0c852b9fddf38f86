"""The local hub, as huggingface_hub itself sees it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import httpx
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.faults import GATE, Fault, too_many
from tests.hub.server import READ, WRITE, Hub, hub_server
from tests.waiting import WAIT

# huggingface_hub 2.4 uploads large files in a way that its HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPOSITORY, LARGE = "owner/model", os.urandom(1_500_000)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_server(tmp_path) as server:
        server.repositories.add(REPOSITORY, {"weights.pth": LARGE, "deep/er/notes.json": b"{}"})
        yield server
    assert [thread for thread in threading.enumerate() if "process_request" in thread.name] == []


def downloaded(
    name: str = "weights.pth", *, token: str | None = None, revision: str | None = None, again: bool = False
) -> bytes:
    path = hf_hub_download(REPOSITORY, name, token=token, revision=revision, force_download=again)
    return Path(path).read_bytes()


def test_files_come_as_they_are_and_once(hub: Hub) -> None:
    assert downloaded() == downloaded() == LARGE
    assert downloaded("deep/er/notes.json") == b"{}"
    assert hub.sent("/cdn/") == len(LARGE)
    assert {request.token for request in hub.requests} == {None}


def test_a_child_process_finds_it_by_the_environment(hub: Hub) -> None:
    code = f"import huggingface_hub as h; print(h.hf_hub_download('{REPOSITORY}', 'weights.pth'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True)
    assert Path(done.stdout.strip()).read_bytes() == LARGE
    assert done.stdout.startswith(str(hub.home))


def test_a_cut_download_goes_on_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what was not written yet is lost
    hub.faults.add(Fault("GET /cdn", times=1, cut_after=600_000))
    assert downloaded() == LARGE
    ranges = [request.range for request in hub.requests if request.host == "cdn"]
    assert ranges == [None, "bytes=600000-"]
    assert hub.sent("/cdn/") == len(LARGE)


def test_without_ranges_all_comes_again(hub: Hub) -> None:
    hub.faults.add(Fault("GET /cdn", times=1, cut_after=600_000))
    hub.faults.add(Fault("GET /cdn", no_ranges=True))
    assert downloaded() == LARGE
    assert hub.sent("/cdn/") == len(LARGE) + 600_000


def test_wrong_bytes_have_the_right_length(hub: Hub) -> None:
    with hub.faults.during(Fault("GET /cdn", wrong_bytes=True)):
        wrong = downloaded()
    assert len(wrong) == len(LARGE)
    assert sum(a != b for a, b in zip(wrong, LARGE, strict=True)) == 1
    assert downloaded(again=True) == LARGE


def test_a_told_digest_is_the_etag(hub: Hub) -> None:
    hub.faults.add(Fault("HEAD", digest="0" * 64))
    place = Path(hf_hub_download(REPOSITORY, "weights.pth")).resolve()
    assert place.name == "0" * 64


def test_slow_and_silent_answers(hub: Hub) -> None:
    hub.faults.add(Fault("GET /cdn", bytes_per_second=3_000_000))
    began = time.monotonic()
    assert downloaded() == LARGE
    assert time.monotonic() - began > 0.4
    with hub.faults.during(Fault("", wait=60)), pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{hub.url}/api/models/{REPOSITORY}", timeout=0.2)


@pytest.mark.parametrize("place", ["/moved{path}", "{hub}/moved{path}", "{cdn}{path}"])
def test_redirects(hub: Hub, place: str) -> None:
    hub.faults.add(Fault(f"GET /{REPOSITORY}/resolve", times=1, location=place))
    url = f"{hub.url}/{REPOSITORY}/resolve/main/weights.pth"
    answer = httpx.get(url, follow_redirects=True, headers={"Authorization": f"Bearer {READ}"})
    assert answer.content == LARGE
    # a token does not leave the host that it is for
    tokens = {(request.host, request.token) for request in hub.requests}
    assert tokens == {("hub", READ), ("cdn", None)}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("HEAD", status=401), HfHubHTTPError),
        (Fault("HEAD", status=403, headers=GATE), GatedRepoError),
        (Fault("HEAD", status=503), LocalEntryNotFoundError),
        (Fault("HEAD", cut_after=-1), Exception),
    ],
)
def test_answers_that_are_no_success(
    hub: Hub, fault: Fault, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with hub.faults.during(fault), pytest.raises(error):
        downloaded()
    assert downloaded() == LARGE
    assert fault.met >= 1


def test_too_many_requests_are_told_when_to_come_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    hub.faults.add(too_many(7, "GET /cdn", times=2))
    assert downloaded() == LARGE
    assert slept == [8.0, 8.0]


def test_what_is_not_there_has_the_hubs_code(hub: Hub) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        downloaded("none.json")
    with pytest.raises(RevisionNotFoundError):
        downloaded(revision="none")
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("owner/none")


def test_private_and_gated_repositories(hub: Hub) -> None:
    found = hub.repositories.find(REPOSITORY)
    assert found is not None
    found.private = True
    with pytest.raises(RepositoryNotFoundError):
        downloaded()
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        downloaded(token="hf_unknown")
    assert downloaded(token=READ) == LARGE
    found.gated = True
    with pytest.raises(GatedRepoError):
        downloaded("deep/er/notes.json", token=READ)
    found.granted.add(READ)
    assert downloaded("deep/er/notes.json", token=READ) == b"{}"
    assert all(request.token is None for request in hub.requests if request.host == "cdn")


def test_listings(hub: Hub) -> None:
    hub.page = 1
    api = HfApi()
    assert [entry.path for entry in api.list_repo_tree(REPOSITORY)] == ["deep", "weights.pth"]
    deep = ["deep/er", "deep/er/notes.json"]
    assert [entry.path for entry in api.list_repo_tree(REPOSITORY, "deep", recursive=True)] == deep
    found = api.get_paths_info(REPOSITORY, ["weights.pth", "none"])
    assert [entry.path for entry in found] == ["weights.pth"]
    assert sum("/tree/" in request.path for request in hub.requests) == 4
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPOSITORY, "none"))
    files = fsspec.filesystem("hf").find(REPOSITORY)
    assert files == [f"{REPOSITORY}/deep/er/notes.json", f"{REPOSITORY}/weights.pth"]


def test_commits_are_whole_and_on_top_of_the_last(hub: Hub) -> None:
    api = HfApi(token=WRITE)
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    for _ in range(2):
        api.create_repo("owner/new", exist_ok=True, private=True)
    head = api.model_info("owner/new").sha
    files = [CommitOperationAdd("a/w.safetensors", LARGE[::-1]), CommitOperationAdd("a/b.json", b"[]")]
    made = api.create_commit("owner/new", files, commit_message="first", parent_commit=head)
    more = [CommitOperationAdd("c.json", b"1")]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("owner/new", more, commit_message="too late", parent_commit=head)
    assert api.list_repo_files("owner/new") == ["a/b.json", "a/w.safetensors"]
    gone: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        CommitOperationDelete("a/", is_folder=True),
        CommitOperationAdd("w.safetensors", LARGE[::-1]),
    ]
    api.create_commit("owner/new", gone, commit_message="moved", parent_commit=made.oid)
    assert api.list_repo_files("owner/new") == ["w.safetensors"]
    assert sum(request.method == "PUT" for request in hub.requests) == 1  # what is there is not sent again
    earlier = api.hf_hub_download("owner/new", "a/b.json", revision=made.oid)
    assert Path(earlier).read_bytes() == b"[]"
    for token, words in ((READ, "write token"), (False, "401")):
        with pytest.raises(HfHubHTTPError, match=words):
            HfApi(token=token).create_commit(REPOSITORY, more, commit_message="not allowed")


def test_a_commit_whose_answer_is_lost_has_happened(hub: Hub) -> None:
    hub.faults.add(Fault("POST .*/commit/", times=1, lose_answer=True))
    api = HfApi(token=WRITE)
    with pytest.raises(Exception, match="disconnected"):
        api.create_commit(REPOSITORY, [CommitOperationAdd("c.json", b"1")], commit_message="lost")
    assert "c.json" in api.list_repo_files(REPOSITORY)
