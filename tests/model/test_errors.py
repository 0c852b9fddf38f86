"""What somebody meant: a name that is nearly the given one, and nothing else."""

import pytest

from model.errors import nearest, question

KNOWN = ("tiny", "base", "large", "ebseg-base", "ade20k-150", "voc-20")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("bse", "base"),
        ("lagre", "large"),
        ("ADE20K_150", "ade20k-150"),
        ("voc20", "voc-20"),
        ("Base", "base"),
    ],
)
def test_what_was_meant(given: str, meant: str) -> None:
    assert nearest(given, KNOWN) == meant
    assert question(given, KNOWN) == f"; did you mean {meant}?"


@pytest.mark.parametrize("given", ["", "zeppelin", "x" * 100_000])
def test_nothing_was_meant(given: str) -> None:
    assert nearest(given, KNOWN) is None
    assert question(given, KNOWN) == ""
