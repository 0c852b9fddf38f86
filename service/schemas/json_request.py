"""A request as one JSON document, the image in it."""

from pydantic import ConfigDict, Field

from service.schemas.segment import ONE_SOURCE, SegmentRequest

# blue over green, 8 x 8, as PNG in base64: short enough for an example that works as it stands
TINY_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAHElEQVR42mNsP/eaARtgYsABSJdg2bovkNZ2"
    "AABydgQWtP+IGQAAAABJRU5ErkJggg=="
)


class JsonSegmentRequest(SegmentRequest):
    """A request whose image travels as base64, or is named by its URL."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["image"]}, {"required": ["url"]}],
            "anyOf": ONE_SOURCE,
            "examples": [
                {"image": TINY_PICTURE, "classes": ["sky", "grass"], "outputs": ["rle", "npy"]},
                {"image": TINY_PICTURE, "vocabulary": "voc-20", "background": {"threshold": 0.3}},
            ],
        }
    )

    image: str | None = Field(
        default=None,
        description="bytes of a JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF in base64, or as a data URL, "
        "`data:image/jpeg;base64,...`; or give `url`",
        json_schema_extra={"format": "byte"},
    )
    url: str | None = Field(
        default=None,
        description="where the service fetches the image, instead of `image`: http://, https://, s3:// or "
        "gs://, of hosts and buckets that its settings list",
    )
