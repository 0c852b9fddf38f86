"""`ebseg publish`: what it prints, and how it fails."""

import json
from pathlib import Path

import pytest

import ebseg
from service.hot_loading.announcements import CHANNEL
from tests.service.caches.redis_server import redis_server
from tests.training.publishing.publish_runs import make_run, write_scores
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "scenes")


def test_the_command_from_dry_run_to_force(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "registry" / "ebseg-tiny"
    line = ["publish", str(run), str(place)]
    assert ebseg.main([*line, "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"would publish {place}/1"
    assert printed[2:] == [
        "parent none",
        printed[3],
        "licence not said",
        "miou_all none -> 60.00",
        "miou_trained none -> 75.00",
        "miou_new none -> 32.50",
        "next: the same without --dry-run",
    ]
    assert not place.exists()

    assert ebseg.main([*line, "--dtype", "float16", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["published"] is True
    assert first["location"] == f"{place}/1"
    assert first["metrics"]["miou_new"] == {"new": 32.5, "old": None, "limit": None}
    assert (
        first["bytes"]
        == sum(path.stat().st_size for path in (place / "1").iterdir())
        - (place / "1" / "manifest.json").stat().st_size
    )

    write_scores(run, miou_new=20.0)
    assert ebseg.main(line) == 1  # refused, which is no wrong usage
    output = capsys.readouterr()
    assert output.out == ""
    assert "miou_new fell from 32.50 (version 1) to 20.00, below the limit 32.00 (margin 0.5)" in output.err
    assert ebseg.main([*line, "--metrics", "miou_all,miou_trained"]) == 0
    assert f"published {place}/2\n" in capsys.readouterr().out
    assert ebseg.main([*line, "--margin", "0", "--metrics", "miou_new"]) == 0
    write_scores(run, miou_new=10.0)
    capsys.readouterr()
    assert ebseg.main([*line, "--force", "--reason", "a trial"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [
        "miou_new 20.00 -> 10.00 (limit 19.50)",
        "forced: miou_new fell from 20.00 (version 3) to 10.00, below the limit 19.50 (margin 0.5)",
        f"next: ebseg serve --registry {tmp_path / 'registry'} --model ebseg-tiny",
    ]
    assert ebseg.main(["inspect", str(place / "4"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["forced"]["reason"] == "a trial"


def test_what_is_not_compared_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "own", miou_new=None)
    line = ["publish", str(run), str(tmp_path / "registry" / "own")]
    assert ebseg.main(line) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:-1] == [
        "miou_new none -> none",
        "not compared: miou_new: this checkpoint has none, for its data holds no such class",
    ]
    assert ebseg.main([*line, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["metrics"]["miou_all"] == {"new": 60.0, "old": 60.0, "limit": 59.5}
    assert [text.partition(":")[0] for text in values["not_compared"]] == ["miou_new"]


def test_wrong_use_is_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, reason in (
        (["--reason", "x"], "--reason is for --force"),
        (["--metrics", "iou"], "--metrics takes any of"),
        (["--margin", "-1"], "--margin must not be negative"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ):
        assert ebseg.main(["publish", str(run), str(tmp_path / "tiny"), *options]) == 2
        assert reason in capsys.readouterr().err
    assert ebseg.main(["publish", str(tmp_path), str(tmp_path / "tiny")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_services_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the Redis that is named; one that is away costs a warning, a wrong address comes before all work."""
    place = tmp_path / "registry" / "told"
    line = ["publish", str(run), str(place), "--force", "--json"]
    with redis_server() as redis, redis.client().pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(CHANNEL)
        wait_until(lambda: redis.client().pubsub_numsub(CHANNEL)[0][1] == 1, pause=0.05)

        found: list[str] = []

        def heard(times: int) -> bool:
            message = channel.get_message(timeout=0.1)
            if message is not None:
                found.append(message["data"].decode())
            return found == ["told"] * times

        monkeypatch.setenv("EBSEG_REDIS_URL", redis.url)
        assert ebseg.main([*line, "--dry-run"]) == 0
        assert ebseg.main(line) == 0
        wait_until(lambda: heard(1))
        assert ebseg.main(["models", "unpin", "told", "--registry", str(place.parent)]) == 0
        wait_until(lambda: heard(2))
        printed = capsys.readouterr()
        assert '"announced": null' in printed.out
        assert '"announced": true' in printed.out
        assert "warning" not in printed.err
    assert ebseg.main([*line, "--redis-url", "redis://:secret@127.0.0.1:1"]) == 0
    printed = capsys.readouterr()
    assert "ebseg: warning: services are not told (" in printed.err
    assert "secret" not in printed.err
    assert json.loads(printed.out)["announced"] is False
    assert ebseg.main([*line, "--redis-url", "http://x"]) == 2
    assert "redis_url must begin with redis://" in capsys.readouterr().err
    assert ebseg.main(["models", "unpin", "told", "--redis-url", "redis://x"]) == 2
    assert "--redis-url needs --registry" in capsys.readouterr().err
    assert len(list(place.glob("[0-9]*"))) == 2
