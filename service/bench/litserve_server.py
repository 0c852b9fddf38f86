"""The engine that returns at once under LitServe, for comparison: same requests, same decoding and encoding.

Serves until a signal comes. LitServe is a development dependency.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import litserve  # type: ignore[import-untyped]
import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray

from model.pictures.decode import settle_warnings
from service.bench.pictures import label_map
from service.options import MAX_PIXELS
from service.segmentation.colors import class_colors
from service.segmentation.decode import decode
from service.segmentation.render import Labels, label_png

BATCH = 8  # the service's own default
BATCH_TIMEOUT = 0.01  # seconds; with 0 its worker never sleeps, much longer ones only delay

Item = tuple[list[str], NDArray[np.uint8]]


class InstantAPI(litserve.LitAPI):  # type: ignore[misc]
    """Decode, batch, label map at once, unbatch, encode."""

    def setup(self, device: str) -> None:
        """There is no model."""
        settle_warnings()

    def decode_request(self, request: Request, **kwargs: Any) -> Item:
        """Class names and the picture of a multipart request.

        LitServe reads the annotation, and gives the form.
        """
        form: Any = request
        names = json.loads(form["request"])["classes"]
        return names, decode(form["image"].file.read(), max_pixels=MAX_PIXELS)

    def batch(self, inputs: list[Item]) -> list[Item]:
        """Pictures of any sizes."""
        return inputs

    def predict(self, x: list[Item], **kwargs: Any) -> list[tuple[list[str], Labels]]:
        """The label map of each."""
        return [(names, label_map(picture.shape[:2], len(names))[0]) for names, picture in x]

    def unbatch(self, output: list[tuple[list[str], Labels]]) -> list[tuple[list[str], Labels]]:
        """One by one."""
        return output

    def encode_response(self, output: tuple[list[str], Labels], **kwargs: Any) -> Response:
        """An indexed PNG."""
        names, labels = output
        png = label_png(labels, names, class_colors([None] * len(names)))
        return Response(png, media_type="image/png")


def main(argv: Sequence[str] | None = None) -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)
    # One worker: one engine on one device, as the service has it.
    api = InstantAPI(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=args.port, log_level="warning", generate_client_file=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
