"""`ebseg models canary --watch`: when to go on, when to go back, and what stands in the way."""

from typing import Any

import pytest

from model.errors import ModelError
from service.commands.canary_watch import Advice, FleetFigures, judge
from tests.service.cli_calls import run
from tests.service.commands.test_remote_commands import DETAILS
from tests.service.scripted_server import Answer, scripted


@pytest.mark.parametrize(
    ("canary", "beside", "advice"),
    [
        (FleetFigures(), FleetFigures(1000), "wait"),
        (FleetFigures(199), FleetFigures(1000), "wait"),
        (FleetFigures(200), FleetFigures(1000), "go on"),
        (FleetFigures(4, 4), FleetFigures(1000), "wait"),  # may be chance
        (FleetFigures(5, 5), FleetFigures(1000), "go back"),
        (FleetFigures(300, 30), FleetFigures(1000, 50), "go on"),  # 10 % beside 5 %: no more than twice
        (FleetFigures(300, 50), FleetFigures(1000, 50), "go back"),
        (FleetFigures(300, 0, 0.9), FleetFigures(1000, 0, 0.4), "go back"),
        (FleetFigures(300, 0, 0.8), FleetFigures(1000, 0, 0.4), "go on"),
        (FleetFigures(19, 0, 9.0), FleetFigures(1000, 0, 0.4), "wait"),
        (FleetFigures(300, 0, None), FleetFigures(1000, 0, 0.4), "go on"),
    ],
)
def test_verdicts(canary: FleetFigures, beside: FleetFigures, advice: Advice) -> None:
    assert judge(canary, beside, needed=200) == advice


@pytest.mark.parametrize(
    ("canary", "beside", "advice"),
    [
        (FleetFigures(14, 4), FleetFigures(1000), "go back"),  # 29 % beside none
        (FleetFigures(13, 4), FleetFigures(1000), "wait"),
        (FleetFigures(11, 1), FleetFigures(1000), "go on"),  # one may be chance
        (FleetFigures(10, 0, 0.9), FleetFigures(1000, 0, 0.4), "go back"),
        (FleetFigures(9, 0, 0.9), FleetFigures(1000, 0, 0.4), "wait"),
    ],
)
def test_few_answers_that_are_enough_are_judged_as_at_a_trials_end(
    canary: FleetFigures, beside: FleetFigures, advice: Advice
) -> None:
    assert judge(canary, beside, needed=10) == advice


def sample(value: object) -> Answer:
    return Answer(
        body={"status": "success", "data": {"result": [{"metric": {}, "value": [1.0, str(value)]}]}}
    )


NOTHING = Answer(body={"status": "success", "data": {"result": []}})


@pytest.mark.parametrize(
    ("figures", "code", "line_start"),
    [
        (
            (250, 0, 0.3, 900, 2, 0.25),
            0,
            "more: ebseg models canary ebseg-base 4 --percent 50; all: ebseg",
        ),
        ((50, 20, "NaN", 900, 2, 0.25), 1, "back: ebseg models rollback ebseg-base"),
    ],
)
def test_it_waits_until_it_is_clear(
    figures: tuple[object, ...], code: int, line_start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        scripted(Answer(body=DETAILS), Answer(body=DETAILS)) as server,
        scripted(*[NOTHING] * 6, *map(sample, figures)) as prometheus,
    ):
        words = ("--watch", "--prometheus", prometheus.url, "--url", server.url, "--every", "0.01")
        assert run("models", "canary", "ebseg-base", *words) == code
        first, _, last = capsys.readouterr().out.splitlines()
        asked: list[Any] = [one.path for one in prometheus.heard]
    assert first == "version 4, 10 %: 0 of 0 failed; version 3: 0 of 0 failed: wait"
    assert last.startswith(line_start)
    assert len(asked) == 12


def test_what_stands_in_the_way_is_told() -> None:
    with scripted(Answer(body=DETAILS | {"asked": None})) as server:
        words = ("models", "canary", "ebseg-base", "--url", server.url)
        with pytest.raises(ModelError, match="no canary of ebseg-base is asked for"):
            run(*words, "--watch", "--prometheus", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match="--watch needs --prometheus URL"):
            run(*words, "--watch")
        with pytest.raises(ModelError, match="which version"):
            run(*words)
    for answer in (Answer(500, {}), Answer(body={"status": "error"})):
        with scripted(Answer(body=DETAILS)) as server, scripted(answer) as prometheus:
            watching = ("models", "canary", "ebseg-base", "--watch", "--url", server.url)
            with pytest.raises(ModelError, match="does not answer as Prometheus does"):
                run(*watching, "--prometheus", prometheus.url)
