"""What a request asks for, held against the settings, the stored vocabularies and the checkpoint."""

from model.confidence.caution import AnswerWarning, lowered_timeout
from model.vocabulary.classes import Vocabulary
from service.runtime import HttpSide
from service.scheduling.deadline import Deadline
from service.schemas.segment import SegmentRequest
from service.segmentation.door import Door
from service.segmentation.requested import check_length
from service.settings import Settings

MANY_CLASSES = 64  # a longer list is checked on a picture thread


async def chosen_vocabulary(
    service: HttpSide, door: Door, spec: SegmentRequest
) -> tuple[Vocabulary, list[str | None]]:
    """The classes of a request, and the colours that were given for them.

    Raises:
        NotFoundError: the vocabulary is unknown.
        InvalidRequestError, VocabularyError: too many classes, or one that cannot be used.
    """
    if spec.vocabulary is not None:
        stored = await door.vocabulary(spec.vocabulary)
        check_length("vocabulary", len(stored.classes), service.settings.max_classes)
        return stored.vocabulary(spec.templates, spec.synonym_mode), stored.colors
    entries = spec.classes or []
    check_length("classes", len(entries), service.settings.max_classes)
    if len(entries) > MANY_CLASSES:
        vocabulary = await service.in_pool(lambda: spec.listed)
    else:
        vocabulary = spec.listed
    return vocabulary, [entry.color for entry in entries]


def chosen_deadline(
    spec: SegmentRequest, settings: Settings, since: float
) -> tuple[Deadline, tuple[AnswerWarning, ...]]:
    """When the request's time is over, and a warning if that is earlier than it asked for.

    Args:
        spec: the request.
        settings: with the service's times.
        since: when the request's first byte came, by `time.monotonic`; its body's time counts.
    """
    most = settings.max_timeout_ms
    asked = settings.timeout_ms if spec.timeout_ms is None else spec.timeout_ms
    deadline = Deadline(min(asked, most) / 1000, since=since)
    return deadline, (lowered_timeout(asked, most),) if asked > most else ()
