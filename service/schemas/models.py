"""What `/v1/models` takes and answers, as JSON."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.schemas.classes import Strict
from service.schemas.segment import ModelAnswer

LARGEST_VERSION = 999_999_999

Role = Literal["current", "canary", "draining"]

Fact = str | int | float | bool | None


class DataSourceDetails(BaseModel):
    """A data set that the weights were trained on."""

    name: str = Field(description="of the data set", examples=["COCO-Stuff"])
    terms: str = Field(description="under which it is given", examples=["masks CC BY 4.0"])


class LicensedPartDetails(BaseModel):
    """A part of the weights with a licence of its own."""

    name: str = Field(description="of the part", examples=["SAM's image encoder ViT-B"])
    license: str = Field(description="as SPDX writes it", examples=["Apache-2.0"])


class CardDetails(BaseModel):
    """What a checkpoint tells of itself."""

    domain: str = Field(description="images that it is for", examples=["photographs of everyday scenes"])
    words: list[str] | str = Field(
        description="the words that it knows, or a sentence where they cannot be listed",
        examples=[["sky", "tree"], "any English noun: CLIP's vocabulary"],
    )
    training_data: list[DataSourceDetails] = Field(description="what it was trained on")
    parts: list[LicensedPartDetails] = Field(description="which licence covers what, if there are several")
    scores: dict[str, Fact] = Field(
        description="figures, and what they were measured on", examples=[{"miou_all": 77.0}]
    )
    threshold: float | None = Field(
        description="pixels of a lower confidence are better called other; null if it was never measured",
        examples=[0.5],
    )
    threshold_note: str = Field(description="how that was measured, or why not")
    calibration: dict[str, Fact] = Field(
        description="figures of that measurement", examples=[{"f1_named": 0.83}]
    )
    confidence: dict[str, float] | None = Field(
        description="shares of the images of its domain, each with the confidence that they stay below: "
        "in such an image the mean over all pixels, asked for the card's words; null if never measured",
        examples=[{"0.01": 0.4, "0.5": 0.6}],
    )
    notes: str = Field(description="what else is to be known; may be empty")


class LoadedVersionDetails(BaseModel):
    """A version in memory."""

    version: int = Field(description="its number in the registry", examples=[4])
    digest: str = Field(description="identity of the weights, hexadecimal")
    untrained: bool = Field(description="the weights are random; the masks mean nothing")
    variant: str = Field(description="size of the model", examples=["base"])
    device: str = Field(description="all devices it is on, with commas between", examples=["cuda:0,cuda:1"])
    dtype: str = Field(description="of the numbers that it computes with", examples=["float32"])
    role: Role = Field(description="a draining version only finishes the requests that it began")
    in_flight: int = Field(description="requests that it answers at the moment")
    loaded_at: datetime = Field(description="when it was ready")
    load_seconds: float = Field(description="time from finding it to being ready")


class QuarantinedVersion(BaseModel):
    """A version that was refused, and is left alone until its files change or models are reloaded."""

    version: int = Field(description="its number in the registry", examples=[5])
    reason: str = Field(
        description="why it was refused",
        examples=["model.safetensors does not match its sha256, it was changed or damaged"],
    )
    since: datetime = Field(description="when it was refused")


class UnfinishedVersion(BaseModel):
    """A version whose files are not all in the registry yet, or not whole; it is looked at again."""

    version: int = Field(description="its number in the registry", examples=[6])
    reason: str = Field(description="what it lacks", examples=["model.safetensors is missing"])
    since: datetime = Field(description="when it was first seen")


class AskedDetails(BaseModel):
    """What the registry's serving.json asks every process to serve."""

    revision: int = Field(description="counts the changes", examples=[7])
    policy: str = Field(
        description='"latest": the newest; "pinned": one that stays; "canary": one tried beside another',
        examples=["pinned"],
    )
    version: int | None = Field(description="that serves, where one is named", examples=[3])
    canary: int | None = Field(description="that is tried, where one is named", examples=[4])
    percent: int | None = Field(description="of the requests, for what is tried", examples=[10])
    changed_by: str = Field(description="name of the API key, or user and machine of a command")
    changed_at: datetime = Field(description="when")
    obeyed: bool = Field(description="this process serves what is asked for")


class ModelDetails(ModelAnswer):
    """A model that is loaded: its current version, how that runs, and what goes on around it."""

    variant: str = Field(description="size of the model", examples=["base"])
    device: str = Field(description="all devices it is on, with commas between", examples=["cpu"])
    dtype: str = Field(description="of the numbers that it computes with", examples=["float32"])
    license: str | None = Field(
        description="of the weights, as SPDX writes it; null if the checkpoint does not say",
        examples=["MIT AND Apache-2.0"],
    )
    card: CardDetails | None = Field(
        description="what the checkpoint tells of itself; null if it has no card"
    )
    default: bool = Field(description="it answers requests that name no model")
    policy: str = Field(
        description='"latest", "canary:PERCENT", "pinned", or "fixed" for a checkpoint outside of a registry',
        examples=["latest"],
    )
    pinned: int | None = Field(description="the version it stays at until unpinned")
    asked: AskedDetails | None = Field(
        description="by the registry, of every process; null where nobody asked, and the settings count"
    )
    versions: list[LoadedVersionDetails] = Field(description="in memory, the current one first")
    quarantined: list[QuarantinedVersion] = Field(description="refused ones, newest first")
    unfinished: list[UnfinishedVersion] = Field(
        description="of which not everything is in the registry yet, newest first"
    )
    last_error: str | None = Field(
        description="why the last look at the registry failed; in full where the request shows an admin key, "
        "else its kind, without places and addresses",
        examples=[None, "the registry does not answer as it should; the log of the service says more"],
    )
    last_checked_at: datetime | None = Field(description="when the registry last answered")


class MissingModel(BaseModel):
    """A model that the settings name, and of which no version serves."""

    name: str = Field(description="of the model", examples=["ebseg-base"])
    reason: str = Field(
        description="why; the registry is asked again",
        examples=["the registry does not answer as it should; the log of the service says more"],
    )


class ModelList(BaseModel):
    """The models that are loaded, the default one first."""

    models: list[ModelDetails] = Field(description="empty while the first is loading")
    missing: list[MissingModel] = Field(description="models that do not serve, each with the reason")


class PinRequest(Strict):
    """Which version to stay at."""

    version: int = Field(ge=1, le=LARGEST_VERSION, description="its number in the registry", examples=[3])


class CanaryRequest(Strict):
    """Which version to try, and on how many requests."""

    version: int = Field(ge=1, le=LARGEST_VERSION, description="its number in the registry", examples=[4])
    percent: int = Field(
        ge=1, le=100, description="of the requests that name no version, in every process", examples=[10]
    )


class ModelChange(BaseModel):
    """What a change did, and the model after it."""

    done: str = Field(
        description="in words, for people", examples=["version 3 serves, and stays until unpinned"]
    )
    model: ModelDetails = Field(description="as it is now")
