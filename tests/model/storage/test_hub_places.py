"""Versions in model repositories of a hub: what reading them costs, and what is said when it fails."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from model.errors import CheckpointError
from model.storage.hub.errors import in_words
from model.storage.hub.session import prepare
from model.storage.manifest import FILES, MANIFEST, Manifest
from model.storage.verify import verify
from model.storage.versions import StoreError, Versions
from tests.hub.faults import GATE, Fault, too_many
from tests.hub.server import READ, WRITE, Hub, hub_server
from tests.model.checkpoints import make, reseal, write

REGISTRY = "owner/models"
PLACE = f"hf://{REGISTRY}/registry/ebseg-tiny"
TREE, FILE = "GET .*/tree/", "GET .*/resolve/"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "1"
    write(make(), folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, saved: Path) -> Iterator[Hub]:
    with hub_server(tmp_path) as server:
        upload(server, saved, 1)
        yield server


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long huggingface_hub would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def upload(
    hub: Hub, folder: Path, number: int, place: str = "registry/ebseg-tiny/", branch: str = "main"
) -> None:
    files: dict[str, bytes | Path] = {f"{place}{number}/{name}": folder / name for name in (*FILES, MANIFEST)}
    manifest = Manifest.from_json((folder / MANIFEST).read_bytes())
    if manifest.version != number:
        files[f"{place}{number}/{MANIFEST}"] = renumbered(folder, number)
    hub.repositories.add(REGISTRY, files, branch=branch)


def renumbered(folder: Path, number: int) -> bytes:
    content = (folder / MANIFEST).read_bytes()
    try:
        reseal(folder, version=number)
        return (folder / MANIFEST).read_bytes()
    finally:
        (folder / MANIFEST).unlink()
        (folder / MANIFEST).write_bytes(content)


def heard(hub: Hub) -> list[str]:
    """What was asked since the last time."""
    requests = [str(request) for request in hub.requests]
    del hub.requests[:]
    return requests


def test_a_look_costs_one_request(hub: Hub, saved: Path) -> None:
    versions = Versions(PLACE)
    assert heard(hub) == []
    for numbers in ([1], [1]):
        assert versions.candidates() == numbers
        assert heard(hub) == [f"GET /api/models/{REGISTRY}/tree/main/registry%2Febseg-tiny"]
    upload(hub, saved, 2)  # by another process: nothing here remembers that it was not there
    assert versions.candidates() == [1, 2]
    assert len(heard(hub)) == 1
    assert versions.fingerprint(2) is not None
    assert len(heard(hub)) == 1
    newest = versions.newest()
    assert newest is not None
    assert newest.version == 2
    assert len(heard(hub)) == 3


def test_a_version_is_fetched_whole_and_once(hub: Hub, saved: Path, tmp_path: Path) -> None:
    steps: dict[str, tuple[int, int]] = {}
    versions = Versions(PLACE)
    manifest = versions.fetch(
        1, tmp_path / "1", lambda step, done, total: steps.update({step: (done, total)})
    )
    assert manifest == verify(tmp_path / "1") == Manifest.from_json((saved / MANIFEST).read_bytes())
    large = sum((saved / name).stat().st_size for name in FILES if name.endswith(".safetensors"))
    assert hub.sent("/cdn/") == large
    assert hub.sent("/resolve/") == 2 * (saved / MANIFEST).stat().st_size + sum(
        (saved / name).stat().st_size for name in FILES if not name.endswith(".safetensors")
    )
    assert len(heard(hub)) == 12  # two listings, the revision, seven files, two of them by way of the CDN
    assert {f"fetching {name}" for name in FILES} <= steps.keys()
    assert all(done == total > 0 for done, total in steps.values())


def test_a_cut_download_goes_on_where_it_was(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    versions = Versions(PLACE)
    size = versions.check(1).files["model.safetensors"].bytes
    hub.faults.add(Fault("GET /cdn", times=3, cut_after=1_000_000))
    versions.fetch(1, tmp_path / "1")
    largest = [request for request in hub.requests if request.host == "cdn"][:4]
    assert [request.range for request in largest] == [None, *(f"bytes={n}000000-" for n in (1, 2, 3))]
    assert sum(request.sent for request in largest) == size
    assert naps == [1, 1, 1]


def test_wrong_bytes_are_refused_and_our_digests_count(hub: Hub, tmp_path: Path) -> None:
    versions = Versions(PLACE)
    with (
        hub.faults.during(Fault("GET /cdn", wrong_bytes=True)),
        pytest.raises(CheckpointError, match="does not match its sha256") as raised,
    ):
        versions.fetch(1, tmp_path / "1")
    assert not isinstance(raised.value, StoreError)  # it is the version's own fault
    assert not (tmp_path / "1").exists()
    hub.faults.add(Fault("", digest="0" * 64))  # whatever the hub says of it
    versions.fetch(1, tmp_path / "1")


def test_a_hub_that_tells_another_size(hub: Hub, tmp_path: Path) -> None:
    hub.faults.add(Fault(TREE, size=17))
    with pytest.raises(CheckpointError, match=r"has 17 of its \d+ bytes"):
        Versions(PLACE).check(1)


def test_branches_move_and_commits_do_not(hub: Hub, saved: Path) -> None:
    found = hub.repositories.find(REGISTRY)
    assert found is not None
    commit = found.branches["main"].oid
    upload(hub, saved, 2)
    upload(hub, saved, 3, branch="trial/a")
    numbers = {"": [1, 2], "@main": [1, 2], f"@{commit}": [1], "@trial%2Fa": [1, 2, 3]}
    for revision, expected in numbers.items():
        versions = Versions(f"hf://{REGISTRY}{revision}/registry/ebseg-tiny/")
        assert (versions.numbers(), versions.name) == (expected, "ebseg-tiny")
        assert versions.check(expected[-1]).version == expected[-1]


def test_a_repository_may_be_one_models_place(hub: Hub, saved: Path, tmp_path: Path) -> None:
    hub.repositories.add("owner/ebseg-tiny", {f"1/{path.name}": path for path in saved.iterdir()})
    for location in ("hf://owner/ebseg-tiny", "hf://owner/ebseg-tiny@main/"):
        versions = Versions(location)
        assert (versions.name, versions.numbers()) == ("ebseg-tiny", [1])
    versions.fetch(1, tmp_path / "1")


def test_many_versions_come_in_pages(hub: Hub, saved: Path) -> None:
    hub.page = 2
    for number in range(2, 6):
        upload(hub, saved, number)
    heard(hub)
    assert Versions(PLACE).candidates() == [1, 2, 3, 4, 5]
    assert len(heard(hub)) == 3


def test_what_is_not_there(hub: Hub, tmp_path: Path) -> None:
    empty = Versions(f"hf://{REGISTRY}/elsewhere/ebseg-tiny")
    assert (empty.entries(), empty.numbers(), empty.newest()) == (set(), [], None)
    with pytest.raises(CheckpointError, match=r"/7 has no manifest\.json: there is no such version"):
        Versions(PLACE).fetch(7, tmp_path / "7")
    with pytest.raises(CheckpointError, match="FileNotFoundError") as raised:
        Versions(PLACE).read(f"{REGISTRY}/registry/ebseg-tiny/1/none.json")
    assert not isinstance(raised.value, StoreError)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("hf://owner", "hf://owner: a place on the hub is hf://OWNER/REPOSITORY.*'namespace/name'"),
        ("hf://owner//tiny", "a place on the hub is"),
        ("hf://owner/models@/tiny", "a place on the hub is"),
        ("hf://datasets/owner/models/tiny", "models lie in model repositories, .* not in a dataset"),
        ("hf://buckets/owner/models/tiny", "not in a bucket"),
        ("hf://owner/models/../tiny", "has no . or .. in it"),
        ("hf://owner/models/no name", "a model's name must be"),
    ],
)
def test_unusable_places(location: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        Versions(location)


LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
REFUSALS = [
    (Fault(TREE, status=401), f"the hub wants to know who asks .*; {LOG_IN}", 1),
    (Fault(TREE, status=403), f"your token may not do this with {REGISTRY}.*/settings/tokens", 1),
    (Fault(TREE, status=403, headers=GATE), f"{REGISTRY} is open only to those who asked for access", 1),
    (Fault(TREE, status=404), "the hub answers 404", 1),
    (Fault(TREE, status=500), "the hub answers 500", 6),
    (Fault(TREE, status=503), "the hub answers 503", 6),
    (too_many(1, TREE, times=None), r"the hub is asked too often \(429\)", 6),
    (too_many(3600, TREE, times=None), "the hub asks to come back in 3600 s", 1),
    (Fault(TREE, status=429, headers={"RateLimit": '"api";r=0;t=255'}), "come back in 255 s", 1),
    (Fault(TREE, cut_after=-1), "the connection to http://127.0.0.1:[0-9]+ broke off", 6),
    (Fault(TREE, cut_after=10), "broke off", 6),
    (Fault(TREE, status=200), "the response is none that a hub gives .*; check HF_ENDPOINT", 1),
    (Fault(TREE, location="http://127.0.0.1:1{path}"), "http://127.0.0.1:1 cannot be reached", 6),
    (Fault(TREE, location="{path}"), "TooManyRedirects", 21),
]


@pytest.mark.parametrize(("fault", "words", "asked"), REFUSALS, ids=lambda value: None)
def test_refusals_are_told_in_a_sentence(
    hub: Hub, fault: Fault, words: str, asked: int, naps: list[float]
) -> None:
    versions = Versions(PLACE)
    with hub.faults.during(fault), pytest.raises(StoreError, match=f"^{PLACE}: .*{words}") as raised:
        versions.candidates()
    assert "\n" not in str(raised.value)
    assert len(heard(hub)) == asked
    assert len(naps) == (5 if asked == 6 else 0)
    assert versions.candidates() == [1]  # and is forgotten once it is over


@pytest.mark.parametrize(
    "fault",
    [
        Fault(f"{TREE}|{FILE}", times=2, status=503),
        Fault(f"{TREE}|{FILE}", times=2, status=500),
        too_many(3, f"{TREE}|{FILE}", times=2),
        Fault(f"{TREE}|{FILE}", times=2, cut_after=-1),
        Fault(FILE, times=1, location="/moved{path}"),
        Fault(FILE, times=1, location="{cdn}{path}"),
    ],
    ids=["503", "500", "429", "cut", "moved", "another host"],
)
def test_what_passes_is_waited_for(hub: Hub, fault: Fault, naps: list[float], tmp_path: Path) -> None:
    hub.faults.add(fault)
    versions = Versions(PLACE, token=READ)
    assert versions.fetch(1, tmp_path / "1").version == 1
    assert len(naps) == (0 if fault.location else 2)
    assert {request.token for request in hub.requests if request.host == "cdn"} == {None}


def test_a_silent_hub_is_given_up(hub: Hub, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    huggingface_hub.close_session()
    versions = Versions(PLACE)
    with (
        hub.faults.during(Fault(TREE, wait=3600)),
        pytest.raises(StoreError, match="did not answer in time; try again, or set HF_HUB_DOWNLOAD_TIMEOUT"),
    ):
        versions.candidates()
    assert len(heard(hub)) == 6


def test_tokens_open_private_and_gated_repositories(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    found = hub.repositories.find(REGISTRY)
    assert found is not None
    found.private = True
    with pytest.raises(
        StoreError, match=f"no repository {REGISTRY} that all may see; if it is private, {LOG_IN}"
    ):
        Versions(PLACE).candidates()
    with pytest.raises(StoreError, match=r"does not take your token .*set another HF_TOKEN") as wrong:
        Versions(PLACE, token="hf_made_up_by_somebody").candidates()
    assert Versions(PLACE, token=READ).candidates() == [1]
    with pytest.raises(StoreError, match="no repository owner/none, or your token may not see it"):
        Versions("hf://owner/none/ebseg-tiny", token=READ).candidates()
    found.gated = True
    with pytest.raises(StoreError, match=f"asked for access: do so at {hub.url}/{REGISTRY}$") as shut:
        Versions(PLACE, token=READ).check(1)
    found.granted.add(READ)
    assert Versions(PLACE, token=READ).check(1).version == 1
    reported = (
        f"{wrong.value} {shut.value} {wrong.value.__cause__} {caplog.text} {Versions(PLACE, token=READ)!r}"
    )
    assert "hf_made_up_by_somebody" not in reported
    assert READ not in reported


@pytest.mark.parametrize("stored", ["file", "environment"])
def test_the_token_is_found_as_other_tools_do(hub: Hub, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if stored == "file":
        hub.home.mkdir()
        (hub.home / "token").write_text(WRITE)
    else:
        monkeypatch.setenv("HF_TOKEN", WRITE)
    assert Versions(PLACE).candidates() == [1]
    assert [request.token for request in hub.requests] == [WRITE]


def test_a_missing_revision(hub: Hub) -> None:
    with pytest.raises(StoreError, match=f"{REGISTRY} has no such revision .*name one of {hub.url}"):
        Versions(f"hf://{REGISTRY}@none/registry/ebseg-tiny").candidates()


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="HF_HUB_OFFLINE keeps huggingface_hub from the network; unset it"):
        Versions(PLACE).candidates()
    assert heard(hub) == []


def test_the_librarys_log_lines_go_where_all_others_go() -> None:
    prepare()
    assert logging.getLogger("huggingface_hub").handlers == []


def test_errors_that_wrap_each_other_end() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert in_words(first, "owner/models") == "RuntimeError: first"
