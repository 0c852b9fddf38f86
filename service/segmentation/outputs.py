"""What an answer is made of, and how much of it there may be."""

from service.errors import invalid
from service.http.negotiate import OUTPUT_OF, Form
from service.schemas.segment import SegmentRequest
from service.segmentation.render import WEBP_LONGEST

MOST_SCORES = 32 << 20  # elements of K x H x W that one answer may hold


def chosen_outputs(spec: SegmentRequest, form: Form) -> frozenset[str]:
    """What to make for this answer.

    Raises:
        InvalidRequestError: `outputs` has more than an answer of this form can hold.
    """
    only = OUTPUT_OF.get(form)
    if only is None:
        return frozenset(spec.outputs or ["rle"])
    if spec.outputs not in (None, [only]):
        raise invalid("outputs", f"an answer as {form} holds {only} only; accept application/json for more")
    return frozenset([only])


def check_outputs(outputs: frozenset[str], size: tuple[int, int], classes: int) -> None:
    """Raises InvalidRequestError if an output would be larger than it may be."""
    height, width = size
    if "overlay" in outputs and max(size) > WEBP_LONGEST:
        raise invalid(
            "outputs", f"an overlay has at most {WEBP_LONGEST} pixels a side; set output_size to less"
        )
    if "scores" in outputs and classes * height * width > MOST_SCORES:
        raise invalid(
            "outputs",
            f"scores of {classes} x {height} x {width} are more than {MOST_SCORES} numbers; set output_size, "
            'for example {"long_side": 512}',
        )
