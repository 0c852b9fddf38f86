"""The workflow that a tag starts: linted, and held against what it releases."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from requirements import release
from requirements.layers import ROOT
from tests.deploy.files import VERSION, read_yaml, tool
from tests.waiting import WAIT

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
TEXT = WORKFLOW.read_text(encoding="utf-8")
JOBS: dict[str, Any] = read_yaml(WORKFLOW)["jobs"]


def linted(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [tool("actionlint"), "-oneline", str(path)],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )


def test_actionlint_finds_nothing_and_would_find_a_slip(tmp_path: Path) -> None:
    done = linted(WORKFLOW)
    assert (done.returncode, done.stdout) == (0, "")
    slip = tmp_path / "release.yml"
    slip.write_text(TEXT.replace("needs: join", "needs: joined"), encoding="utf-8")
    assert 'needs job "joined" which does not exist' in linted(slip).stdout


def test_nothing_is_released_before_the_tests() -> None:
    def before(job: str) -> set[str]:
        needed = JOBS[job].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct | {name for one in direct for name in before(one)}

    assert {job for job in JOBS if "test" in before(job)} == set(JOBS) - {"test"}
    assert {"run": ".ci/run"} in JOBS["test"]["steps"]
    # What the index of packages has once cannot be taken back
    assert before("publish") == set(JOBS) - {"publish"}
    assert 'helm push "ebseg-${GITHUB_REF_NAME#v}.tgz" "oci://${charts}"' in str(JOBS["chart"]["steps"])


def test_everything_goes_to_one_place() -> None:
    """Names are one variable: no line spells an owner, nor a registry but the one at the top."""
    assert TEXT.count("ghcr.io") == 1
    assert set(re.findall(r"\$\{REGISTRY\}/(\S+?)/", TEXT)) == {"${PLACE,,}"}
    image = re.findall(r'image="(\S+)"', TEXT)
    assert {name.strip('"') for name in image} == {"${REGISTRY}/${PLACE,,}/ebseg"}


def test_images_are_of_the_targets_that_there_are() -> None:
    matrix = JOBS["image"]["strategy"]["matrix"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert set(matrix["target"]) == set(re.findall(r"(?m)^FROM runtime AS target-(\w+)$", dockerfile))
    assert matrix["target"] == JOBS["join"]["strategy"]["matrix"]["target"]
    assert {found["arch"] for found in matrix["include"]} == set(matrix["arch"]) == {"amd64", "arm64"}
    (build,) = [step["with"] for step in JOBS["image"]["steps"] if "build-push" in step.get("uses", "")]
    assert (build["sbom"], build["provenance"], build["push"]) == (True, "mode=max", True)
    for name in re.findall(r"(?m)^(\w+)=", build["build-args"]):
        assert f"\nARG {name}" in dockerfile


def test_who_signs_may_ask_for_a_certificate() -> None:
    for job in JOBS.values():
        signs = "cosign sign" in str(job["steps"])
        assert not signs or job["permissions"]["id-token"] == "write"
    for job in ("join", "chart"):
        assert "cosign sign" in str(JOBS[job])


def test_the_charts_default_image_becomes_the_released_one(tmp_path: Path) -> None:
    """By the workflow's own line."""
    (line,) = re.findall(r"(?m)^ +(sed -i .*k8s/chart/values\.yaml)$", TEXT)
    values = tmp_path / "k8s" / "chart" / "values.yaml"
    values.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / "k8s" / "chart" / "values.yaml", values)
    variables = {"REGISTRY": "registry.example", "PLACE": "Somebody", "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=variables, check=True, timeout=WAIT)
    assert read_yaml(values)["image"]["repository"] == "registry.example/somebody/ebseg"


def test_a_tag_is_the_version_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main([f"v{VERSION}"]) == 0
    assert all(found == {VERSION} for found in release.versions().values())
    assert release.main(["v9.9.9"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(release.PLACES)
    assert lines[0] == f"pyproject.toml names {VERSION}, not v9.9.9"
