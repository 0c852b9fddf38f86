"""JSON values as what annotations of dataclasses say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from model.network.json_reading import read


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    pair: tuple[int, str]
    inner: Inner | None
    many: tuple[Inner, ...] = ()
    flag: bool = field(default_factory=bool)
    facts: Mapping[str, str | int | float | None] = field(default_factory=dict)
    text_or_list: tuple[str, ...] | str = ""
    free: dict[str, Any] = field(default_factory=dict)


WHOLE: dict[str, Any] = {
    "name": "n",
    "pair": [1, "x"],
    "inner": {"size": 2},
    "many": [{"size": 3.5, "kind": "b"}],
}


def test_values_become_what_annotations_say() -> None:
    made = read(Outer, WHOLE, "it", ValueError)
    assert made == Outer(name="n", pair=(1, "x"), inner=Inner(size=2.0), many=(Inner(size=3.5, kind="b"),))
    assert isinstance(made.inner.size, float)
    assert read(Outer, {"name": "n", "pair": [1, "x"], "inner": None}, "it", ValueError).inner is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "it.name must be of type str, got 3"),
        ({"flag": 1}, "it.flag must be of type bool, got 1"),
        ({"pair": [1]}, r"it.pair must be a list of 2, got \[1\]"),
        ({"pair": [True, "x"]}, "it.pair must be of type int, got True"),
        ({"many": {}}, r"it.many must be a list, got \{\}"),
        ({"many": [3]}, "it.many must be an object, got 3"),
        ({"inner": {}}, "it.inner: field 'size' is missing"),
        ({"inner": {"size": 1, "kind": "c"}}, "it.inner.kind must be one of a, b; got 'c'"),
        ({"inner": {"size": 1, "kind": []}}, r"it.inner.kind must be one of a, b; got \[\]"),
        ({"more": 1}, "it: field 'more' is unknown"),
        ({"facts": []}, r"it.facts must be an object, got \[\]"),
        ({"facts": {"a": True}}, "it.facts.a must be of type str, int or float, got True"),
        ({"text_or_list": 3}, "it.text_or_list must be a list or of type str, got 3"),
        ({"text_or_list": ["a", 3]}, "it.text_or_list must be of type str, got 3"),
        ({"inner": {"size": 10**400}}, r"it.inner.size is too large a number: 10+\.\.\.0+$"),
        ({"name": ["x" * 1000] * 1000}, r"^it.name must be of type str, got .{1,700}$"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LookupError, match=message):
        read(Outer, WHOLE | change, "it", LookupError)


def test_several_kinds_and_mappings() -> None:
    """A whole number stays one where both are allowed; what may be anything comes as it is."""
    facts = {"a": 1, "b": 0.5, "c": "x", "d": None}
    made = read(Outer, WHOLE | {"facts": facts, "free": {"x": [1, {}]}}, "it", ValueError)
    assert (made.facts, made.free) == (facts, {"x": [1, {}]})
    assert type(made.facts["a"]) is int
    for given, wanted in ((["a", "b"], ("a", "b")), ("a", "a")):
        assert read(Outer, WHOLE | {"text_or_list": given}, "it", ValueError).text_or_list == wanted
    assert read(Outer, {"name": "n", "pair": [1, "x"]}, "it", ValueError).inner is None


def test_what_has_a_default_may_be_missing_unless_all_is_wanted() -> None:
    without = {name: value for name, value in WHOLE.items() if name not in ("many", "inner")}
    assert read(Outer, without | {"inner": None}, "it", ValueError).many == ()
    with pytest.raises(ValueError, match="field 'facts' is missing"):
        read(Outer, WHOLE, "it", ValueError, complete=True)
