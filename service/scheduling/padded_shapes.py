"""A short list of padded shapes, so that pictures of any sizes fill batches: `padding = few`.

The network sees what is padded: a picture in a larger shape than its own gets other labels, as it would with
another resolution. So the list is used where it is asked for. A picture's shape depends on its own size
alone, never on who waits beside it.
"""

from model.network.pictures import padded_size

RATIOS = (1.0, 1.5, 2.0)  # of long to short sides; both ways round
MOST_PADDING = 1.6  # times the pixels of a picture's own shape; beyond it, it keeps its own

Shape = tuple[int, int]


def few_shapes(short_side: int) -> list[Shape]:
    """Five shapes for pictures of this short side, the smallest first; all are multiples of the stride."""
    found = []
    for ratio in RATIOS:
        rows, columns = padded_size((short_side, round(short_side * ratio)))
        found += [(rows, columns), (columns, rows)]
    return list(dict.fromkeys(found))


def listed(size: Shape, shapes: list[Shape]) -> Shape:
    """The smallest of a list's shapes that holds a picture of this size; its own if none is near."""
    own = padded_size(size)
    holding = [shape for shape in shapes if shape[0] >= own[0] and shape[1] >= own[1]]
    best = min(holding, key=_pixels, default=own)
    return best if _pixels(best) <= MOST_PADDING * _pixels(own) else own


def _pixels(shape: Shape) -> int:
    return shape[0] * shape[1]
