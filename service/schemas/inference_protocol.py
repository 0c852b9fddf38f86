"""The Open Inference Protocol's documents, as JSON, and the tensors that our models take and give.

Field names and shapes are the protocol's (HTTP/REST, version 2), with Triton's extension for binary
tensors. Unknown fields and parameters are errors.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from model.tiling import LARGEST_TILE, SMALLEST_TILE
from service.schemas.classes import Strict
from service.schemas.segment import LONGEST_SIDE

HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics"]
PLATFORM = "pytorch_safetensors"
LARGEST = (1 << 63) - 1  # of a dimension or a size
# a picture of one pixel, in base64
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4IccMAAKbAOpE+jhlAAAAAElFTkSuQmCC"
MOST_TENSORS = 16  # in a list of a request; there are fewer to keep apart, and errors stay short


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of our models: what the protocol calls it, and how it looks; -1 is any length."""

    name: str
    datatype: Literal["BYTES", "FP32", "UINT16", "BOOL"]
    shape: tuple[int, ...]
    required: bool = False

    def fits(self, shape: list[int]) -> bool:
        """Whether a shape is one that this tensor may have."""
        return len(shape) == len(self.shape) and all(
            wanted in (-1, given) for wanted, given in zip(self.shape, shape, strict=True)
        )


IMAGE = Tensor("image", "BYTES", (1,), required=True)
CLASSES = Tensor("classes", "BYTES", (-1,), required=True)
TEMPLATES = Tensor("templates", "BYTES", (-1,))
THRESHOLD = Tensor("threshold", "FP32", (1,))
INPUTS = {tensor.name: tensor for tensor in (IMAGE, CLASSES, TEMPLATES, THRESHOLD)}

LABEL_MAP = Tensor("label_map", "UINT16", (-1, -1))
CONFIDENCE = Tensor("confidence", "FP32", (-1, -1))
CLASS_NAMES = Tensor("class_names", "BYTES", (-1,))
TRAINED = Tensor("trained", "BOOL", (-1,))
OUTPUTS = {tensor.name: tensor for tensor in (LABEL_MAP, CONFIDENCE, CLASS_NAMES, TRAINED)}


class _Given(Strict):
    """What comes in; a number in quotes is no number."""

    model_config = ConfigDict(strict=True)


class RequestParameters(_Given):
    """Of a whole request."""

    timeout: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST,
        description="time for the response, waiting included, microseconds; 0 is the service's, and so is "
        "what is longer than the service gives",
    )
    binary_data_output: bool = Field(default=False, description="outputs come as binary data, not as JSON")
    vocabulary: str | None = Field(
        default=None, description="name of a stored class list, instead of the input classes"
    )
    mean: Literal["geometric", "arithmetic"] | None = Field(
        default=None, description="how trained and new classes are balanced, with the weights of that mean"
    )
    long_side: int | None = Field(
        default=None, ge=1, le=LONGEST_SIDE, description="of the outputs, pixels; the image's if left out"
    )
    tile_size: int | None = Field(
        default=None,
        ge=SMALLEST_TILE,
        le=LARGEST_TILE,
        description="segments the image in tiles of this side, pixels of the image",
    )
    tile_overlap: int | None = Field(
        default=None, ge=0, description="that they share at least, pixels; left out: a quarter of tile_size"
    )

    @model_validator(mode="after")
    def _overlap_of_tiles(self) -> Self:
        if self.tile_overlap is not None and self.tile_overlap >= (self.tile_size or 0):
            raise ValueError("tile_overlap must be below tile_size, which must be there")
        return self


class InputParameters(_Given):
    """Of an input."""

    binary_data_size: int | None = Field(
        default=None, ge=0, le=LARGEST, description="bytes of this tensor behind the JSON document"
    )
    content_type: Literal["base64", "str"] | None = Field(
        default=None,
        description="how elements of BYTES are written; in JSON the image is base64, everything else str",
    )


class RequestInput(_Given):
    """An input tensor, with `data` or with `binary_data_size`."""

    name: str = Field(max_length=100, description=f"one of {', '.join(INPUTS)}", examples=["classes"])
    shape: list[Annotated[int, Field(ge=0, le=LARGEST)]] = Field(
        max_length=8, description="length of every dimension", examples=[[2]]
    )
    datatype: str = Field(max_length=20, description="as GET /v2/models/{model} has it", examples=["BYTES"])
    parameters: InputParameters | None = Field(default=None, description="where and how its elements come")
    data: list[Annotated[Any, WithJsonSchema({"type": ["string", "number"]})]] | None = Field(
        default=None, description="the elements, in a flat list", examples=[["sky", "tree"]]
    )

    @property
    def said(self) -> InputParameters:
        """The parameters, where there are none their defaults."""
        return self.parameters or InputParameters()


class OutputParameters(_Given):
    """Of an output that is asked for."""

    binary_data: bool | None = Field(default=None, description="it comes as binary data, not as JSON")


class RequestedOutput(_Given):
    """An output that is asked for."""

    name: str = Field(max_length=100, description=f"one of {', '.join(OUTPUTS)}", examples=["label_map"])
    parameters: OutputParameters | None = Field(default=None, description="how its elements come")


class InferenceRequest(_Given):
    """An inference request."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "id": "42",
                    "inputs": [
                        {
                            "name": "image",
                            "shape": [1],
                            "datatype": "BYTES",
                            "data": [_PIXEL],
                        },
                        {"name": "classes", "shape": [2], "datatype": "BYTES", "data": ["sky", "tree"]},
                    ],
                    "outputs": [{"name": "label_map"}, {"name": "class_names"}],
                }
            ]
        },
    )

    id: str | None = Field(default=None, description="comes back in the response")
    model_name: str | None = Field(default=None, description="if given, the one of the path")
    parameters: RequestParameters | None = Field(default=None, description="of the whole request")
    inputs: list[RequestInput] = Field(
        min_length=1, max_length=MOST_TENSORS, description="image and classes, and what else is wanted"
    )
    outputs: list[RequestedOutput] | None = Field(
        default=None, max_length=MOST_TENSORS, description="label_map if left out or empty"
    )


class OutputTensor(BaseModel):
    """An output; its elements are in `data`, or behind the document."""

    name: str = Field(description=f"one of {', '.join(OUTPUTS)}", examples=["label_map"])
    shape: list[int] = Field(description="length of every dimension", examples=[[2, 3]])
    datatype: str = Field(description="of its elements", examples=["UINT16"])
    parameters: dict[str, int] | None = Field(
        default=None,
        description="binary_data_size: its bytes behind the document, if it is there",
        examples=[{"binary_data_size": 12}],
    )
    data: list[Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean"]})]] | None = Field(
        default=None, description="flat, row by row", examples=[[1, 1, 2, 1, 2, 2]]
    )


class InferenceAnswer(BaseModel):
    """The response to an inference request."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str = Field(description="the model that answered", examples=["ebseg-base"])
    model_version: str = Field(description="its version that answered", examples=["1"])
    id: str | None = Field(default=None, description="the request's, if it had one")
    parameters: dict[str, bool | float | str] = Field(
        description='threshold: pixels of a lower confidence are "other"; threshold_source: request, card or '
        "uncalibrated; untrained: the weights are random, and the masks mean nothing; warnings: what "
        "makes the response doubtful, in words",
        examples=[{"threshold": 0.5, "threshold_source": "card"}],
    )
    outputs: list[OutputTensor] = Field(description="in the order in which they were asked for")


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str = Field(description="of the server", examples=["ebseg"])
    version: str = Field(description="of the server", examples=["0.1.0"])
    extensions: list[str] = Field(description="of the protocol, that it knows", examples=[EXTENSIONS])


class TensorMetadata(BaseModel):
    """What a tensor of a model looks like."""

    name: str = Field(description="of the tensor", examples=["classes"])
    datatype: str = Field(description="of its elements", examples=["BYTES"])
    shape: list[int] = Field(description="-1 is any length", examples=[[-1]])


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str = Field(description="of the model", examples=["ebseg-base"])
    versions: list[str] = Field(description="those that serve, the usual one first", examples=[["3"]])
    platform: str = Field(description="what computes, and from which files", examples=[PLATFORM])
    inputs: list[TensorMetadata] = Field(
        description="what it takes; image is needed, and classes or a vocabulary"
    )
    outputs: list[TensorMetadata] = Field(description="what it gives")


class Live(BaseModel):
    """The server runs."""

    live: Literal[True] = Field(description="it does")


class Ready(BaseModel):
    """The server takes requests."""

    ready: Literal[True] = Field(description="it does")


class ModelReady(BaseModel):
    """A model takes requests."""

    name: str = Field(description="of the model", examples=["ebseg-base"])
    ready: Literal[True] = Field(description="it does")


class ErrorAnswer(BaseModel):
    """What went wrong, in words."""

    error: str = Field(description="in a sentence", examples=["inputs.1: there is no input 'labels'"])


def metadata_of(tensors: dict[str, Tensor]) -> list[TensorMetadata]:
    """The protocol's description of some tensors."""
    return [
        TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))
        for tensor in tensors.values()
    ]


_ERRORS = {  # what each status says, and words that such an error may have
    400: ("The request cannot be read", "the document is no JSON: expected value at line 1 column 1"),
    401: ("A key is needed", "this needs a key: send it as Authorization: Bearer KEY or X-API-Key: KEY"),
    404: ("No such model or version", "this version of ebseg-tiny is not loaded; loaded: 1"),
    408: ("The body arrived too slowly", "the body did not arrive within 30 s"),
    413: ("The body or the image is too large", "the body is too large; at most 20971520 bytes are taken"),
    415: ("Media type not supported", "a body is taken as it is, without a Content-Encoding"),
    422: ("A value cannot be used", "inputs.1: there is no input 'labels'"),
    429: ("Too many requests", "the queue is full; try again in 2 s"),
    500: ("Internal error", "something went wrong inside the service; its log has more"),
    503: ("Not ready, or out of memory", "the model is loading"),
    504: ("The request took too long", "no response within 30 s; see timeout_ms"),
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entry for error answers of these statuses, and of any other one."""
    entries: dict[int | str, dict[str, Any]] = {
        status: _error(description, words)
        for status, (description, words) in _ERRORS.items()
        if status in statuses
    }
    return entries | {"default": _error("Any other error", "this path does not take this method")}


def _error(description: str, words: str) -> dict[str, Any]:
    example = {"application/json": {"example": {"error": words}}}
    return {"model": ErrorAnswer, "description": description, "content": example}
