"""What an answer is made of, and how much of it there may be."""

from service.errors import invalid
from service.http.negotiate import OUTPUTS_OF, Form
from service.schemas.segment import SegmentRequest
from service.segmentation.render import WEBP_LONGEST

OF_PICTURE = frozenset({"overlay", "cutout"})  # outputs that show the picture
OF_SCORES = frozenset({"scores", "soft_mask"})  # outputs made of the scores of all classes
MOST_SCORES = 32 << 20  # elements of K x H x W that one answer may hold


def chosen_outputs(spec: SegmentRequest, form: Form) -> frozenset[str]:
    """What to make for this answer.

    Raises:
        InvalidRequestError: `outputs` has more than an answer of this form can hold.
    """
    files = OUTPUTS_OF.get(form)
    if files is None:
        return frozenset(spec.outputs or ["rle"])
    chosen = spec.outputs or files[:1]
    if len(chosen) != 1 or chosen[0] not in files:
        only = " or ".join(files)
        raise invalid("outputs", f"a response as {form} holds {only} only; accept application/json for more")
    return frozenset(chosen)


def check_outputs(outputs: frozenset[str], size: tuple[int, int], classes: int) -> None:
    """Raises InvalidRequestError if an output would be larger than it may be."""
    height, width = size
    if "overlay" in outputs and max(size) > WEBP_LONGEST:
        raise invalid(
            "outputs", f"an overlay has at most {WEBP_LONGEST} pixels a side; set output_size to less"
        )
    if outputs & OF_SCORES and classes * height * width > MOST_SCORES:
        raise invalid(
            "outputs",
            f"{' and '.join(sorted(outputs & OF_SCORES))} need scores of {classes} x {height} x {width}, "
            f'which are more than {MOST_SCORES} numbers; set output_size, for example {{"long_side": 512}}',
        )
