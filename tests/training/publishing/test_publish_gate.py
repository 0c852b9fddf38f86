"""The gate: what is compared, what is refused, and what the refusal says."""

from typing import Any

import pytest

from training.errors import TrainingError
from training.publishing.publish import QualityGate
from training.publishing.quality_gate import MetricComparison, finite, judge

OLD: dict[str, Any] = {
    "miou_all": 60.0,
    "miou_trained": 75.0,
    "miou_new": 32.5,
    "data": "storybook",
    "split": "val",
    "pictures": 64,
}


def objections(new: dict[str, Any], old: dict[str, Any] | None = OLD, **options: Any) -> tuple[str, ...]:
    return judge(new, old, old_version=3, **options).objections


def test_equal_and_better_scores_pass() -> None:
    assert objections(OLD) == ()
    assert objections(OLD | {"miou_new": 80}) == ()
    assert objections(OLD, None) == ()


@pytest.mark.parametrize(("fall", "passes"), [(0.5, True), (0.51, False)])
def test_margin_is_the_limit(fall: float, passes: bool) -> None:
    comparison = judge(OLD | {"miou_new": 32.5 - fall}, OLD, old_version=3)
    assert comparison.scores[2] == MetricComparison(metric="miou_new", new=32.5 - fall, old=32.5, limit=32.0)
    assert (comparison.objections == ()) is passes


def test_every_fall_is_told_with_old_new_and_limit() -> None:
    found = objections(OLD | {"miou_all": 50.0, "miou_new": 31.0}, margin=1)
    assert found == (
        "miou_all fell from 60.00 (version 3) to 50.00, below the limit 59.00 (margin 1)",
        "miou_new fell from 32.50 (version 3) to 31.00, below the limit 31.50 (margin 1)",
    )


def test_only_chosen_metrics_count() -> None:
    assert objections(OLD | {"miou_new": 1.0, "miou_trained": None}, metrics=("miou_all",)) == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "60", True, -1, 101.0])
@pytest.mark.parametrize("old", [OLD, None])
def test_what_is_no_score_is_refused(value: object, old: dict[str, Any] | None) -> None:
    (found,) = objections(OLD | {"miou_all": value}, old)
    assert f"miou_all is {value}, not a finite number of percent" in found
    assert "ebseg evaluate RUN DATA --save" in found


@pytest.mark.parametrize("old", [OLD, None])
def test_a_score_that_this_checkpoint_has_not_is_left_out(old: dict[str, Any] | None) -> None:
    """No class is new where all were trained: there is no mean of the new ones, and nothing is wrong."""
    result = judge(OLD | {"miou_new": None}, old, old_version=3)
    assert result.objections == ()
    assert result.left_out == ("miou_new: this checkpoint has none, for its data holds no such class",)
    assert [score.limit for score in result.scores][2] is None
    del (missing := dict(OLD))["miou_new"]
    assert judge(missing, old, old_version=3) == result


def test_what_both_have_is_still_compared() -> None:
    found = objections(OLD | {"miou_new": None, "miou_trained": 60.0})
    assert found == ("miou_trained fell from 75.00 (version 3) to 60.00, below the limit 74.50 (margin 0.5)",)


def test_nothing_in_common_is_refused() -> None:
    new, old = OLD | {"miou_all": None, "miou_trained": None}, OLD | {"miou_new": None}
    (found,) = objections(new, old)
    assert found == "no metric is there both for this checkpoint and for version 3: nothing to compare"


@pytest.mark.parametrize("old", [OLD, None, {}])
def test_nothing_measured_is_refused_also_the_first_time(old: dict[str, Any] | None) -> None:
    (found,) = objections({"miou_new": None}, old)
    assert found.startswith("none of miou_all, miou_trained, miou_new was measured: measure it with ebseg")


@pytest.mark.parametrize(("key", "value"), [("data", "ade20k-150"), ("split", "test"), ("pictures", 8)])
def test_scores_of_something_else_are_not_compared(key: str, value: object) -> None:
    comparison = judge(OLD | {key: value, "miou_all": 1.0}, OLD, old_version=3)
    (found,) = comparison.objections
    assert f"version 3 was measured on something else ({key} {OLD[key]!r} then, {value!r} now)" in found
    assert [score.limit for score in comparison.scores] == [None, None, None]


def test_version_that_was_never_measured() -> None:
    (found,) = objections(OLD, {})
    assert "version 3 was never measured" in found


def test_metric_that_the_last_version_lacks() -> None:
    result = judge(OLD, OLD | {"miou_new": None}, old_version=3)
    assert (result.objections, result.left_out) == ((), ("miou_new: version 3 has none",))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"metrics": ("miou",)}, "--metrics takes any of miou_all,miou_trained,miou_new; got 'miou'"),
        ({"metrics": ()}, "--metrics takes any of"),
        ({"margin": -0.1}, "--margin must not be negative, got -0.1"),
        ({"margin": float("nan")}, "--margin must not be negative, got nan"),
        ({"reason": "because"}, "--reason is for --force"),
    ],
)
def test_unusable_options(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        QualityGate(**options)


def test_finite_leaves_what_json_can_hold() -> None:
    given = {"a": [1, float("nan"), {"b": float("inf")}], "c": "x", "d": (True, None, 0.5)}
    assert finite(given) == {"a": [1, None, {"b": None}], "c": "x", "d": [True, None, 0.5]}
