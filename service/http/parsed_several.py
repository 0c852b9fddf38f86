"""A form of several pictures that are asked for the same."""

from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from service.errors import FieldProblem, InvalidRequestError, UnsupportedMediaError
from service.http.body import read_body
from service.http.form_fields import KNOWN, filled, problems_of_names, refuse_query
from service.http.parsed_request import (
    Picture,
    media_type,
    refuse_encoded,
    spec_of,
    whole_form,
)
from service.options import MOST_PICTURES
from service.runtime import HttpSide
from service.scheduling.host_memory import HostAccount
from service.schemas.segment import SegmentRequest

_PICTURES = ("image", "url")


@dataclass(frozen=True, slots=True)
class ParsedSeveral:
    """What is asked for, and the pictures in the form's order, each read once or at its URL."""

    spec: SegmentRequest
    pictures: list[Picture]


async def read_several(request: Request, service: HttpSide, memory: HostAccount) -> ParsedSeveral:
    """Reads a form of pictures.

    Args:
        request: whose body was not read.
        service: whose threads parse, and whose settings say how many pictures there may be.
        memory: where the body's bytes are reserved as they come.

    Raises:
        UnsupportedMediaError: no form.
        MalformedRequestError, InvalidRequestError: a broken one, or fields are wrong.
        HostMemoryError, TooMuchMemoryError: as of `HostAccount.take`.
    """
    refuse_encoded(request)
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaError("several images come as multipart/form-data, each as a part image")
    if request.scope["query_string"]:
        refuse_query(request.query_params)
    chunks = await read_body(request, memory)
    memory.hold(memory.nbytes)  # the form, while it is made of the body
    content_type = request.headers["content-type"]
    parsed = await service.in_pool(_parsed, content_type, chunks, service.settings.max_pictures)
    memory.hold(0)
    return parsed


def _parsed(content_type: str, chunks: list[bytes], most: int) -> ParsedSeveral:
    form = whole_form(content_type, chunks, MOST_PICTURES + 1)  # the document may be a file, too
    given = [(name, value) for name, value in form.multi_items() if name in _PICTURES and value != ""]
    rest = FormData([(name, value) for name, value in form.multi_items() if name not in _PICTURES])
    problems = problems_of_names(rest, KNOWN)
    if not given:
        problems.append(FieldProblem("image", "there is no image: send each as a file in this field"))
    if len(given) > most:
        problems.append(FieldProblem("image", f"{len(given)} images are too many; {most} are taken"))
    for name, value in given:
        if isinstance(value, UploadFile) != (name == "image"):
            problems.append(FieldProblem(name, "image is a file, url a text"))
    if problems:
        raise InvalidRequestError(problems)
    pictures: list[Picture] = [
        value.file.read if isinstance(value, UploadFile) else value for _, value in given
    ]
    return ParsedSeveral(spec_of(filled(rest)), pictures)
