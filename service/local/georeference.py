"""Where a TIFF's pixels lie in the world, by GeoTIFF (OGC 19-008r4): kept in label maps and GeoJSON."""

from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from PIL import ExifTags, TiffImagePlugin

from model.pictures.windows import is_tiff, rasterio_package
from service.errors import UsageError

# ModelPixelScale, ModelTiepoint, ModelTransformation, and the three of the coordinate system
_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
_PLACES = frozenset(_TAGS[:3])
LONGITUDE_LATITUDE = "EPSG:4326"  # of GeoJSON, RFC 7946, section 4
_DIGITS = 9  # of degrees: a tenth of a millimetre


def geo_tags(path: Path, size: tuple[int, int]) -> dict[int, Any]:
    """The GeoTIFF tags of a picture's file; none if it has no georeference.

    Args:
        path: of the picture.
        size: rows and columns that they are to be of.

    Raises:
        UsageError: they are of other pixels.
    """
    if not is_tiff(path):
        return {}
    with path.open("rb") as file, TiffImagePlugin.TiffImageFile(file) as image:
        kept = {tag: image.tag_v2[tag] for tag in _TAGS if tag in image.tag_v2}
        stored = (image.height, image.width)
        turned = image.tag_v2.get(ExifTags.Base.Orientation, 1) != 1
    if _PLACES.isdisjoint(kept):
        return {}
    if turned or stored != size:
        raise UsageError(f"{path}: its georeference is of other pixels than the label map's, which is turned")
    return kept


def in_world(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """A GeoJSON document in pixels as one in degrees, longitude first, by the picture's georeference.

    Raises:
        UsageError: there is none, or the package rasterio is missing.
    """
    rasterio = rasterio_package()
    if rasterio is None:
        raise UsageError("--world needs the package rasterio: pip install 'ebseg[geo]'")
    try:
        with rasterio.open(path, driver="GTiff") as file:
            transform, system = file.transform, file.crs
    except rasterio.errors.RasterioError:
        raise UsageError(f"{path} is no GeoTIFF, so --world says nothing of it") from None
    if system is None or transform.is_identity:
        raise UsageError(f"{path} has no georeference, so --world says nothing of it")

    if not document["features"]:
        return document
    a, b, c, d, e, f, *_ = transform
    corners = [
        (a * x + b * y + c, d * x + e * y + f)
        for feature in document["features"]
        for ring in feature["geometry"]["coordinates"]
        for x, y in ring
    ]
    try:
        places = rasterio.warp.transform(system, LONGITUDE_LATITUDE, *zip(*corners, strict=True))
    except rasterio.errors.RasterioError as error:
        raise UsageError(f"{path}: its coordinate system cannot be used: {error}") from None
    degrees = ([round(x, _DIGITS), round(y, _DIGITS)] for x, y in zip(*places, strict=True))
    features = []
    for feature in document["features"]:
        rings = [list(islice(degrees, len(ring))) for ring in feature["geometry"]["coordinates"]]
        # section 3.1.6: the exterior ring goes against the clock, holes with it
        wound = [one if (_area(one) > 0) == (at == 0) else one[::-1] for at, one in enumerate(rings)]
        features.append({**feature, "geometry": {"type": "Polygon", "coordinates": wound}})
    return {**document, "features": features}


def _area(ring: list[list[float]]) -> float:
    """Twice the area of a closed ring; above 0 if it goes against the clock."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring))
