"""Publishing to a model repository on a hub: one commit a version, whatever happens on the way."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from model.errors import CheckpointError
from model.storage.checkpoint import check_golden, load
from model.storage.manifest import FILES, MANIFEST
from model.storage.versions import StoreError, Versions
from tests.hub.faults import Fault, too_many
from tests.hub.server import READ, WRITE, Hub, hub_server
from tests.training.publishing.processes import EACH, PUBLISHERS
from tests.training.publishing.publish_runs import make_run
from tests.training.publishing.test_publish_processes import ROOT, start
from tests.waiting import LONG_WAIT
from training.publishing import publish as publishing
from training.publishing.hub_store import HubStore
from training.publishing.publish import publish

# huggingface_hub 2.4 uploads large files in a way that its HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPOSITORY = "owner/models"
PLACE = f"hf://{REPOSITORY}/registry/ebseg-tiny"
COMMIT, LARGE = "POST .*/commit/", "PUT /cdn"
FILES_OF_A_VERSION = {*FILES, MANIFEST}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "scenes")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_server(tmp_path) as server:
        server.repositories.create(REPOSITORY)
        yield server


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "check_golden", lambda _: 0.0)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def published(run: Path, place: str = PLACE, token: str | None = WRITE, **options: Any) -> int:
    """Number of the version that is made."""
    made = publish(run, place, storage_options={} if token is None else {"token": token}, **options)
    return made.manifest.version


def commits(hub: Hub) -> int:
    found = hub.repositories.find(REPOSITORY)
    assert found is not None
    return len(found.commits) - 1  # the hub makes the first one


def names(hub: Hub) -> set[str]:
    found = hub.repositories.find(REPOSITORY)
    assert found is not None
    return set(found.branches["main"].files)


def test_a_version_is_one_commit_and_what_a_folder_would_hold(run: Path, hub: Hub, tmp_path: Path) -> None:
    steps: dict[str, tuple[int, int]] = {}
    made = publish(
        run,
        PLACE,
        storage_options={"token": WRITE},
        progress=lambda step, done, total: steps.update({step: (done, total)}),
    )
    assert made.location == f"{PLACE}/1"
    assert commits(hub) == 1
    assert names(hub) == {
        "registry/ebseg-tiny/.claims/1",
        *(f"registry/ebseg-tiny/1/{name}" for name in FILES_OF_A_VERSION),
    }
    assert steps["uploading model.safetensors"][0] == made.manifest.files["model.safetensors"].bytes
    assert Versions(PLACE).fetch(1, tmp_path / "1") == made.manifest
    assert check_golden(load(tmp_path / "1")) <= 1e-6
    assert {request.token for request in hub.requests if request.host == "cdn"} == {None}


@pytest.mark.usefixtures("_quick")
def test_numbers_go_on_and_are_never_given_twice(run: Path, hub: Hub) -> None:
    assert published(run, dry_run=True) == 1
    assert commits(hub) == 0
    assert [published(run) for _ in range(2)] == [1, 2]
    assert sum(request.received for request in hub.requests if request.method == "PUT") < 2 * 3_900_000
    HfApi(token=WRITE).delete_folder("registry/ebseg-tiny/2", REPOSITORY, commit_message="gone")
    assert Versions(PLACE).numbers() == [1]
    assert published(run) == 3
    hub.repositories.add(REPOSITORY, {"README.md": b"# Models"}, branch="trial")
    assert published(run, f"hf://{REPOSITORY}@trial/registry/ebseg-tiny") == 4  # which began as main
    assert Versions(PLACE).numbers() == [1, 3]


@pytest.mark.usefixtures("_quick")
def test_a_repository_for_one_model(run: Path, hub: Hub) -> None:
    hub.repositories.create("owner/ebseg-tiny", private=True)
    place = "hf://owner/ebseg-tiny"
    assert [published(run, place) for _ in range(2)] == [1, 2]
    assert Versions(place, token=READ).numbers() == [1, 2]


@pytest.mark.parametrize(
    ("place", "token", "words"),
    [
        (PLACE, None, "publishing needs a token that may write, from .*: log in with `hf auth login`"),
        (PLACE, READ, r"your token may not do this with owner/models .*write token"),
        (PLACE, "hf_made_up_by_somebody", "the hub does not take your token"),
        ("hf://owner/none/ebseg-tiny", WRITE, "there is no repository owner/none, or your token may not"),
        (f"hf://{REPOSITORY}@none/ebseg-tiny", WRITE, f"{REPOSITORY} has no such revision"),
        (f"hf://{REPOSITORY}@{'0' * 40}/ebseg-tiny", WRITE, "a commit never changes; name a branch"),
        (f"{PLACE}/3", WRITE, "ends in a version's number"),
    ],
    ids=["no token", "read only", "wrong", "no repository", "no branch", "a commit", "a number"],
)
@pytest.mark.usefixtures("_quick")
def test_who_may_not(run: Path, hub: Hub, place: str, token: str | None, words: str) -> None:
    with pytest.raises(Exception, match=words) as raised:
        published(run, place, token)
    assert token is None or token not in f"{raised.value} {raised.value.__cause__}"
    assert "\n" not in str(raised.value)
    assert commits(hub) == 0


@pytest.mark.usefixtures("_quick")
def test_a_lost_answer_makes_no_second_version(run: Path, hub: Hub, naps: list[float]) -> None:
    hub.faults.add(Fault(COMMIT, times=1, lose_answer=True))
    assert published(run) == 1
    assert (commits(hub), naps) == (1, [])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(COMMIT, times=2, status=503),
        Fault(COMMIT, times=2, status=500),
        too_many(2, COMMIT, times=2),
        Fault(COMMIT, times=2, cut_after=500),
        Fault(LARGE, times=2, cut_after=100_000),
        Fault(LARGE, times=2, status=500),
        Fault("POST .*/preupload/", times=2, status=503),
    ],
    ids=["503", "500", "429", "cut", "cut upload", "failed upload", "preparing"],
)
@pytest.mark.usefixtures("_quick")
def test_what_passes_is_waited_for(run: Path, hub: Hub, fault: Fault, naps: list[float]) -> None:
    hub.faults.add(fault)
    assert published(run) == 1
    assert (commits(hub), fault.met, len(naps)) == (1, 2, 2)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(COMMIT, status=503), "the hub answers 503"),
        (Fault(COMMIT, cut_after=500), "broke off"),
        (Fault(LARGE, status=400), "the hub answers 400"),
        (too_many(600, "POST", times=None), "the hub asks to come back in 600 s"),
    ],
    ids=["503", "cut", "refused upload", "429"],
)
@pytest.mark.usefixtures("_quick", "naps")
def test_what_does_not_pass_leaves_nothing(run: Path, hub: Hub, fault: Fault, words: str) -> None:
    with hub.faults.during(fault), pytest.raises(StoreError, match=words):
        published(run)
    assert (commits(hub), names(hub)) == (0, set())
    assert published(run) == 1


@pytest.mark.usefixtures("_quick")
def test_another_commit_in_between_takes_the_number(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = HubStore._create_commit
    theirs: list[int] = []

    def late(self: HubStore, *args: Any) -> None:
        if not theirs:
            hub.repositories.add(REPOSITORY, {"registry/ebseg-tiny/.claims/1": b"theirs"})
            theirs.append(1)
        commit(self, *args)

    monkeypatch.setattr(HubStore, "_create_commit", late)
    assert published(run) == 2
    assert Versions(PLACE).numbers() == [2]


def test_publishers_at_once_share_no_version(run: Path, hub: Hub, tmp_path: Path) -> None:
    numbers = start("race", run, PLACE, {"token": WRITE})
    assert sorted(numbers) == list(range(1, PUBLISHERS * EACH + 1))
    versions = Versions(PLACE)
    assert versions.numbers() == sorted(numbers)
    assert commits(hub) == len(numbers)
    for number in numbers:
        assert versions.fetch(number, tmp_path / str(number)).version == number


def test_killed_at_any_call(run: Path, hub: Hub) -> None:
    (calls,) = start("crash", run, PLACE, {"token": WRITE})
    assert calls == 3  # what to upload, whether it is there already, the commit
    assert names(hub) >= {f"registry/ebseg-tiny/.claims/{number}" for number in range(1, 5)}


def test_the_command_finds_token_and_mirror_as_other_tools_do(run: Path, hub: Hub) -> None:
    command = [sys.executable, "-m", "ebseg", "publish", str(run), PLACE, "--json"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"HF_TOKEN": WRITE},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["location"] == f"{PLACE}/1"
    assert WRITE not in done.stdout + done.stderr
    assert Versions(PLACE).numbers() == [1]


@pytest.mark.usefixtures("_quick")
def test_a_mirror_without_xet(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(CheckpointError, match="a mirror without Xet needs HF_HUB_DISABLE_XET=1"):
        published(run)
    assert commits(hub) == 0
