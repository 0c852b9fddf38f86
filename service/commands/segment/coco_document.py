"""COCO documents of single pictures put together: instances, or panoptic segments."""

from pathlib import Path
from typing import Any


class CocoDocument:
    """The annotations of many pictures, as one document.

    Categories are told apart by their names: what is seen differs from picture to picture where the
    vocabulary is "auto".
    """

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, dict[str, Any]] = {}

    def add(self, file: Path, document: dict[str, Any], segments: str = "") -> None:
        """Takes in a picture's document; its image is called like the file.

        Args:
            file: the picture.
            document: its own.
            segments: name of the file of its panoptic segments, if it is of those.
        """
        number = len(self._images) + 1
        (image,) = document["images"]
        self._images.append({**image, "id": number, "file_name": file.name})
        renamed = {one["id"]: self._category(one) for one in document["categories"]}
        for one in document["annotations"]:
            if "segments_info" in one:
                own = [
                    {**segment, "category_id": renamed[segment["category_id"]]}
                    for segment in one["segments_info"]
                ]
                new = {"image_id": number, "file_name": segments, "segments_info": own}
            else:
                new = {
                    **one,
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": renamed[one["category_id"]],
                }
            self._annotations.append(new)

    def document(self) -> dict[str, Any]:
        """All of it."""
        categories = list(self._categories.values())
        return {"images": self._images, "annotations": self._annotations, "categories": categories}

    def _category(self, one: dict[str, Any]) -> int:
        known = self._categories.setdefault(one["name"], {**one, "id": len(self._categories) + 1})
        return int(known["id"])
