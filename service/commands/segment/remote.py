"""`ebseg segment --url`: a running service does the work."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebseg_client import AnswerError, ClassSpec, ClientError, EBSegClient, Segmentation, SegmentOptions
from ebseg_client.parallel import in_order
from service.errors import ServiceError, UsageError
from service.local.picture_result import FileResult, PictureResult, read
from service.local.remote_errors import is_of_all
from service.segmentation.decode import decode


class RemoteSource:
    """Segments with a running service, several pictures at a time.

    Args:
        client: of the service.
        classes: names or more; None if the options name a vocabulary.
        options: of all requests.
    """

    def __init__(
        self, client: EBSegClient, classes: Sequence[str | ClassSpec] | None, options: SegmentOptions
    ):
        self._client = client
        self._classes = classes
        self._options = options

    def segmented(
        self, files: Sequence[Path], *, pictures: bool, parallel: int
    ) -> Generator[FileResult, None, None]:
        """See `PictureSegmenter`.

        Raises:
            ClientError: one that every other picture would meet as well.
        """

        def one(file: Path) -> FileResult:
            try:
                return FileResult(file, self._found(read(file), keep=pictures), None)
            except (UsageError, ServiceError, ClientError) as error:
                return FileResult(file, None, error)

        with closing(in_order(one, files, parallel)) as results:
            for result in results:
                if result.error is not None and is_of_all(result.error):
                    raise result.error
                yield result

    def _found(self, data: bytes, *, keep: bool) -> PictureResult:
        # masks and overlays are made here: run lengths are the smallest answer that holds everything
        got = self._client.segment(data, self._classes, **self._options)
        picture = self._picture(data, got) if keep else None
        return PictureResult(answer=got, document=dict(got.document), labels=got.labels, picture=picture)

    def _picture(self, data: bytes, got: Segmentation) -> NDArray[np.uint8]:
        """The picture under the mask. The service has taken it, so its size is that of the answer."""
        picture = decode(data, max_pixels=got.width * got.height, frame=self._options.get("frame"))
        if picture.shape[:2] != (got.height, got.width):
            size = f"{picture.shape[1]} x {picture.shape[0]}"
            raise AnswerError(f"maps of {got.width} x {got.height} for an image of {size}")
        return picture
