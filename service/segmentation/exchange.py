"""Regions in the formats of other tools: COCO's instances and panoptic segments, GeoJSON.

COCO's formats: https://cocodataset.org/#format-data; GeoJSON: RFC 7946. A picture is image 1 of its document.
"""

from collections.abc import Sequence
from typing import Any

from service.segmentation.polygons import Region as Outline
from service.segmentation.polygons import Ring
from service.segmentation.regions import RegionSet
from service.segmentation.run_lengths import rles

IMAGE_ID = 1
SCORE_DIGITS = 4


def coco_instances(regions: RegionSet, names: Sequence[str]) -> dict[str, Any]:
    """A document that `pycocotools.coco.COCO` reads: each region is an annotation, its label the category."""
    masks = rles(regions.numbers, len(regions))
    annotations = [
        {**segment, "image_id": IMAGE_ID, "segmentation": mask, "score": round(float(score), SCORE_DIGITS)}
        for segment, mask, score in zip(_segments(regions), masks, regions.scores, strict=True)
    ]
    return {"images": [_image(regions)], "annotations": annotations, "categories": _categories(names)}


def coco_panoptic(regions: RegionSet, names: Sequence[str]) -> dict[str, Any]:
    """A document that panopticapi reads beside the picture of `regions.numbers`.

    Every class counts as a "thing", for each of its regions is a segment. The PNG has no name yet.
    """
    annotation = {"image_id": IMAGE_ID, "file_name": "", "segments_info": _segments(regions)}
    categories = [{**one, "isthing": 1} for one in _categories(names)]
    return {"images": [_image(regions)], "annotations": [annotation], "categories": categories}


def geojson(
    regions: RegionSet, outlines: Sequence[Sequence[Outline]], names: Sequence[str], colors: Sequence[str]
) -> dict[str, Any]:
    """A feature for each region, in pixels: x to the right and y down from the upper left corner.

    Args:
        regions: R of them.
        outlines: the polygons of each region's number; a region is one polygon.
        names, colors: of the classes.
    """
    features = []
    for number, (label, area, score, own) in enumerate(
        zip(regions.labels, regions.areas, regions.scores, outlines, strict=True), 1
    ):
        (outline,) = own
        properties = {
            "name": names[label - 1],
            "label": int(label),
            "color": colors[label - 1],
            "area": int(area),
            "score": round(float(score), SCORE_DIGITS),
        }
        rings = [_closed(ring) for ring in (outline.exterior, *outline.holes)]
        geometry = {"type": "Polygon", "coordinates": rings}
        features.append({"type": "Feature", "id": number, "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def _image(regions: RegionSet) -> dict[str, Any]:
    height, width = regions.numbers.shape
    return {"id": IMAGE_ID, "width": width, "height": height, "file_name": ""}


def _categories(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(names, 1)]


def _segments(regions: RegionSet) -> list[dict[str, Any]]:
    """What both of COCO's formats say of a region."""
    columns = (regions.labels.tolist(), regions.areas.tolist(), regions.boxes.tolist())
    return [
        {"id": number, "category_id": label, "area": area, "bbox": box, "iscrowd": 0}
        for number, (label, area, box) in enumerate(zip(*columns, strict=True), 1)
    ]


def _closed(ring: Ring) -> list[list[int]]:
    """A ring as GeoJSON has it: its last corner is its first one."""
    corners: list[list[int]] = ring.tolist()
    return [*corners, corners[0]]
