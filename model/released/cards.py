"""The cards that commands write: of the released weights, and of weights that nobody has trained."""

from model.confidence.card import ANY_NOUN, Card, DataSource, LicensedPart
from model.released.known import RELEASED

RELEASED_LICENSE = "MIT AND Apache-2.0"
UNTRAINED_LICENSE = "MIT"
NOT_MEASURED = "not measured: `ebseg calibrate` measures it on images with masks"

_TOWERS = {"base": ("ViT-B", "ViT-B/16"), "large": ("ViT-B", "ViT-L/14")}


def released(variant: str, *, own_classes: bool = False) -> Card:
    """The card of weights in the official format.

    Args:
        variant: name of their configuration; "base" and "large" are those that the paper's authors released.
        own_classes: other training classes than COCO-Stuff's were named, so they are not the released ones.
    """
    known = variant in RELEASED and not own_classes
    scores = dict(RELEASED[variant].miou) if known else {}
    sam, clip = _TOWERS.get(variant, ("", ""))
    segmenter = [
        DataSource(name="COCO-Stuff", terms="masks CC BY 4.0; photographs under the terms of Flickr")
    ]
    return Card(
        domain="photographs of everyday scenes",
        words=ANY_NOUN,
        training_data=(
            *(segmenter if known else ()),
            DataSource(name="CLIP's 400 million images with texts", terms="never published"),
            DataSource(name="SA-1B, for the SAM encoder", terms="a research licence of its own"),
        ),
        parts=(
            LicensedPart(name="EBSeg", license="MIT"),
            LicensedPart(name=f"SAM's image encoder {sam}".strip(), license="Apache-2.0"),
            LicensedPart(name=f"CLIP {clip}".strip(), license="MIT"),
        ),
        scores=scores | ({"unit": "mIoU, percent", "measured_by": "the paper, table 1"} if known else {}),
        threshold_note=NOT_MEASURED,
        notes="CLIP's model card calls any deployment out of scope until it was tested in its own domain.",
    )


def untrained() -> Card:
    """The card of random weights."""
    return Card(
        domain="none: the weights are random, the masks mean nothing",
        words="none: the weights are random",
        threshold_note="not measured: there is nothing to measure",
    )
