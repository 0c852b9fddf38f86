"""The Accept header."""

import time
from collections.abc import Callable

import pytest

from service.errors import NotAcceptableError
from service.http.negotiate import form_of_parts, negotiate

JSON, PNG, WEBP, NPY = "application/json", "image/png", "image/webp", "application/x-npy"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/*", JSON),
        ("image/*", PNG),
        ("image/png", PNG),
        ("image/webp", WEBP),
        ("application/x-npy", NPY),
        ("image/webp,image/png", WEBP),
        ("image/png;q=0.5, image/webp;q=0.8", WEBP),
        ("image/avif,image/webp,image/*,*/*;q=0.8", WEBP),
        ("text/html, */*;q=0.1", JSON),
        ("application/json;q=0, */*", PNG),
        ("image/png;q=0, image/*", WEBP),
        ("*/*;q=0.1, application/x-npy;q=0.2", NPY),
        (" , image/png , ", PNG),
    ],
)
def test_chosen(accept: str | None, form: str) -> None:
    assert negotiate(accept) == form


@pytest.mark.parametrize(
    "accept",
    ["text/html", "image/jpeg", "image/png;q=0", "*/*;q=0", "png", "image/png;q=high", "image/png;q=2", "/"],
)
def test_refused(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/json, image/png"):
        negotiate(accept)


@pytest.mark.parametrize("read", [negotiate, form_of_parts])
def test_a_long_header_is_not_taken_apart(read: Callable[[str], str]) -> None:
    assert read("application/json" + " " * 4000) == JSON
    began = time.process_time()
    for _ in range(100):
        with pytest.raises(NotAcceptableError, match="more than 4096 characters"):
            read("*," * 30_000)
    assert time.process_time() - began < 0.5  # each took 50 ms
