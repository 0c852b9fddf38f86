"""What a request asks for, held against the settings, the stored vocabularies and the checkpoint."""

from model.vocabulary.classes import Vocabulary
from service.runtime import Service
from service.schemas.segment import SegmentRequest
from service.segmentation.requested import check_length, invalid
from service.settings import Settings

MANY_CLASSES = 64  # a longer list is checked on a picture thread


async def chosen_vocabulary(service: Service, spec: SegmentRequest) -> tuple[Vocabulary, list[str | None]]:
    """The classes of a request, and the colours that were given for them.

    Raises:
        NotFoundError: the vocabulary is unknown.
        InvalidRequestError, VocabularyError: too many classes, or one that cannot be used.
    """
    if spec.vocabulary is not None:
        stored = await service.vocabularies.get(spec.vocabulary)
        check_length("vocabulary", len(stored.classes), service.settings.max_classes)
        return stored.vocabulary(spec.templates, spec.synonym_mode), stored.colors
    entries = spec.classes or []
    check_length("classes", len(entries), service.settings.max_classes)
    if len(entries) > MANY_CLASSES:
        vocabulary = await service.in_pool(lambda: spec.listed)
    else:
        vocabulary = spec.listed
    return vocabulary, [entry.color for entry in entries]


def chosen_timeout(spec: SegmentRequest, settings: Settings) -> int:
    """Milliseconds that the request has.

    Raises:
        InvalidRequestError: it asks for more than there is.
    """
    if spec.timeout_ms is None:
        return settings.timeout_ms
    if spec.timeout_ms > settings.max_timeout_ms:
        raise invalid("timeout_ms", f"must be at most {settings.max_timeout_ms}")
    return spec.timeout_ms
