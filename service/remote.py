"""`ebseg segment --url`: a running service does the work."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ebseg_client import (
    AnswerError,
    ClientError,
    ConnectionFailedError,
    EBSegClient,
    FieldsRefusedError,
    KeyRefusedError,
    NotFoundError,
    SegmentOptions,
)
from ebseg_client.parallel import in_order
from service.decode import decode
from service.errors import ServiceError
from service.found import Found, Segmented, UsageError, read
from service.schemas import SegmentAnswer

# Met by every other picture as well.
HOPELESS = (AnswerError, ConnectionFailedError, FieldsRefusedError, KeyRefusedError, NotFoundError)


class RemoteSource:
    """Segments with a running service, several pictures at a time.

    Args:
        client: of the service.
        classes: names; None if the options name a vocabulary.
        options: of all requests.
        max_pixels: of pictures that are decoded here for their overlays.
    """

    def __init__(
        self, client: EBSegClient, classes: Sequence[str] | None, options: SegmentOptions, max_pixels: int
    ):
        self._client = client
        self._classes = classes
        self._options = options
        self._max_pixels = max_pixels

    def segmented(
        self, files: Sequence[Path], *, pictures: bool, parallel: int
    ) -> Generator[Segmented, None, None]:
        """See `Source`.

        Raises:
            ClientError: of the kinds in `HOPELESS`.
        """

        def one(file: Path) -> Segmented:
            try:
                return Segmented(file, self._found(read(file), keep=pictures), None)
            except (UsageError, ServiceError, ClientError) as error:
                return Segmented(file, None, error)

        with closing(in_order(one, files, parallel)) as results:
            for result in results:
                if isinstance(result.error, HOPELESS):
                    raise result.error
                yield result

    def _found(self, data: bytes, *, keep: bool) -> Found:
        # masks and overlays are made here: run lengths are the smallest answer that holds everything
        got = self._client.segment(data, self._classes, **self._options)
        document: dict[str, Any] = dict(got.document)
        try:
            answer = SegmentAnswer.model_validate(document)
        except ValidationError as error:
            raise AnswerError(f"an answer that no EBSeg service gives: {error.errors()[0]['msg']}") from None
        picture = decode(data, max_pixels=self._max_pixels) if keep else None
        return Found(answer=answer, document=document, labels=got.labels, picture=picture)
