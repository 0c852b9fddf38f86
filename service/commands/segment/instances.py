"""COCO documents of single pictures put together."""

from pathlib import Path
from typing import Any


class Instances:
    """The instances of many pictures, as one document.

    Categories are told apart by their names: what is seen differs from picture to picture where the
    vocabulary is "auto".
    """

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}

    def add(self, file: Path, document: dict[str, Any]) -> None:
        """Takes in a picture's document; its image is called like the file."""
        number = len(self._images) + 1
        (image,) = document["images"]
        self._images.append({**image, "id": number, "file_name": file.name})
        renamed = {
            one["id"]: self._categories.setdefault(one["name"], len(self._categories) + 1)
            for one in document["categories"]
        }
        for one in document["annotations"]:
            self._annotations.append(
                {
                    **one,
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": renamed[one["category_id"]],
                }
            )

    def document(self) -> dict[str, Any]:
        """All of it."""
        categories = [{"id": at, "name": name, "supercategory": ""} for name, at in self._categories.items()]
        return {"images": self._images, "annotations": self._annotations, "categories": categories}
