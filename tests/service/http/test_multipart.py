"""The short way to read a form gives what Starlette's parser gives, or leaves the form to it."""

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import MalformedRequestError
from service.http.multipart import MOST_PARTS, read_form

TYPE = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="classes"\r\n\r\nsky\r\n'
FILE = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n'
    b"Content-Type: image/png\r\n\r\nx\0y\r\n"
)
END = b"--b--\r\n"
Items = list[tuple[str, str | bytes]]


def short(content_type: str, body: bytes) -> Items | None:
    form = read_form(content_type, [body], max_files=2)
    if form is None:
        return None
    return [(k, v if isinstance(v, str) else v.file.read()) for k, v in form.multi_items()]


def long(content_type: str, body: bytes) -> Items | None:
    """What Starlette makes of it; None for an error."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parsing = MultiPartParser(Headers({"content-type": content_type}), stream(), max_files=2).parse()
    try:
        parsing.send(None)
    except StopIteration as done:
        items = done.value.multi_items()
    except MultiPartException:
        return None
    else:
        raise AssertionError("it waits for something")
    found: Items = []
    for name, value in items:
        if isinstance(value, UploadFile):
            found.append((name, value.file.read()))
            value.file.close()
        else:
            found.append((name, value))
    return found


def test_text_and_file() -> None:
    assert short(TYPE, PART + FILE + END) == [("classes", "sky"), ("image", b"x\0y")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (TYPE, PART + FILE + b"--b--"),
        ('multipart/form-data;boundary="b"', PART + END),
        ("Multipart/Form-Data; boundary=b", PART + END),
        (TYPE, FILE.replace(b"Content-", b"content-") + END),
        (TYPE, PART.replace(b"sky", b"") + END),
        (TYPE, PART.replace(b"sky", b"\r\n-- b\r\n--") + END),
        (TYPE, PART.replace(b"sky", "Häuser".encode()) + END),
        (TYPE, FILE.replace(b"x\0y", bytes(range(256)) * 50) + END),
        (
            TYPE,
            b'--b\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name="a"\r\n\r\nsky\r\n'
            + END,
        ),
        (TYPE, FILE.replace(b'"p"', "\"Bäume; '1'.png\"".encode()) + FILE + END),
    ],
)
def test_regular_forms_are_read_alike(content_type: str, body: bytes) -> None:
    found = short(content_type, body)
    assert found is not None
    assert found == long(content_type, body)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", PART + END),
        (f"{TYPE}; charset=utf-16", PART + END),
        ("multipart/form-data; boundary=", PART + END),
        (TYPE, b""),
        (TYPE, END),
        (TYPE, PART),
        (TYPE, PART + b"--b-"),
        (TYPE, PART + END + b"epilogue"),
        (TYPE, b"preamble\r\n" + PART + END),
        (TYPE, PART + b"--bb\r\n" + END),
        (TYPE, b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n--b--\r\n'),
        (TYPE, PART.replace(b'"classes"', b'"cl\\"asses"') + END),
        (TYPE, PART.replace(b'name="classes"', b"name=classes") + END),
        (TYPE, PART.replace(b'; name="classes"', b"") + END),
        (TYPE, PART.replace(b"form-data", b"attachment") + END),
        (TYPE, PART.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + END),
        (TYPE, PART.replace(b"\r\n\r\n", b"\r\nContent-Type: a\r\n folded\r\n\r\n") + END),
        (TYPE, PART.replace(b"\r\n\r\n", b"\r\nContent-Type: " + b"a" * 2000 + b"\r\n\r\n") + END),
        (TYPE, PART.replace(b"\r\n", b"\n") + END),
        (TYPE, FILE * 3 + END),
        (TYPE, PART * (MOST_PARTS + 1) + END),
    ],
)
def test_what_is_unusual_is_left_to_the_parser(content_type: str, body: bytes) -> None:
    assert short(content_type, body) is None


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(MalformedRequestError, match="the form field classes is not UTF-8"):
        short(TYPE, PART.replace(b"sky", b"\xff") + END)


LINES = [b"\r\n", b"\r\n\r\n", b"\n", b"--b", b"--", b"b", b"x", b"\0", b"\xff", b'"', b";", PART, FILE, END]
PIECES = st.sampled_from([*LINES, *PART.split(b" "), *FILE.split(b" ")])


@given(st.lists(PIECES, max_size=12))
def test_forms_of_any_pieces_are_read_alike_or_not_at_all(pieces: list[bytes]) -> None:
    for body in (b"".join(pieces), PART + b"".join(pieces) + END):
        try:
            found = short(TYPE, body)
        except MalformedRequestError:
            assert b"\xff" in body
        else:
            assert found is None or found == long(TYPE, body)
