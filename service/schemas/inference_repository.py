"""What the Open Inference Protocol's extensions tell of models: an index, configurations, statistics."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.classes import Strict
from service.schemas.inference_protocol import PLATFORM, Tensor

_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "UINT16": "TYPE_UINT16", "BOOL": "TYPE_BOOL"}


class IndexRequest(Strict):
    """Which models to list."""

    model_config = ConfigDict(strict=True)

    ready: bool = Field(default=False, description="only those that take requests")


class IndexEntry(BaseModel):
    """A version of a model, or a model of which none serves."""

    name: str = Field(description="of the model", examples=["ebseg-base"])
    version: str | None = Field(default=None, description="left out where none serves", examples=["1"])
    state: Literal["READY", "UNAVAILABLE"] = Field(description="whether it takes requests")
    reason: str = Field(description="why it does not; empty if it does")


class ConfiguredTensor(BaseModel):
    """A tensor, in the words of a configuration."""

    name: str = Field(description="of the tensor", examples=["classes"])
    data_type: str = Field(description="of its elements", examples=["TYPE_STRING"])
    dims: list[int] = Field(description="-1 is any length", examples=[[-1]])
    optional: bool | None = Field(default=None, description="of an input: whether it may be left out")

    @classmethod
    def of(cls, tensor: Tensor, *, optional: bool | None = None) -> "ConfiguredTensor":
        """What there is to say of one of our tensors."""
        return cls(
            name=tensor.name, data_type=_TYPES[tensor.datatype], dims=list(tensor.shape), optional=optional
        )


class DynamicBatching(BaseModel):
    """How requests share batches, which is not seen in shapes."""

    preferred_batch_size: list[int] = Field(description="the most images of a batch", examples=[[8]])
    max_queue_delay_microseconds: int = Field(description="how long a free device waits for more")


class ModelConfiguration(BaseModel):
    """How a model is set up."""

    model_config = ConfigDict(protected_namespaces=())

    name: str = Field(description="of the model", examples=["ebseg-base"])
    platform: str = Field(description="what computes, and from which files", examples=[PLATFORM])
    backend: str = Field(description="that runs it", examples=["ebseg"])
    max_batch_size: int = Field(description="0: no dimension of a tensor is a batch's")
    input: list[ConfiguredTensor] = Field(description="what it takes")
    output: list[ConfiguredTensor] = Field(description="what it gives")
    dynamic_batching: DynamicBatching = Field(description="how requests share batches")


class Duration(BaseModel):
    """How often, and how long in all."""

    count: int = Field(description="how often")
    ns: int = Field(description="time in all, nanoseconds")


class InferenceStatistics(BaseModel):
    """Of a version, since it was loaded; all routes count."""

    success: Duration = Field(description="requests that were answered")
    fail: Duration = Field(description="requests that got an error; their time is not counted")
    queue: Duration = Field(description="images that waited for a device")
    compute_input: Duration = Field(description="images that were decoded")
    compute_infer: Duration = Field(description="images that a device predicted and classified")
    compute_output: Duration = Field(description="responses that were encoded")


class VersionStatistics(BaseModel):
    """A version's statistics."""

    name: str = Field(description="of the model", examples=["ebseg-base"])
    version: str = Field(description="of the model", examples=["1"])
    inference_count: int = Field(description="images that were answered")
    execution_count: int = Field(description="batches that a device predicted")
    inference_stats: InferenceStatistics = Field(description="counts and times")


class ModelStatistics(BaseModel):
    """Statistics of versions in memory."""

    model_config = ConfigDict(protected_namespaces=())

    model_stats: list[VersionStatistics] = Field(description="one a version")
