"""What a request asks for, held against the settings, the stored vocabularies and the checkpoint."""

from model.network.balance import Balance, Weights
from model.vocabulary.classes import Vocabulary
from service.runtime import Service
from service.schemas.segment import BalanceSpec, SegmentRequest
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


def to_balance(spec: BalanceSpec | None, default: Balance) -> Balance | None:
    """The balance of a request; None leaves it to the checkpoint.

    Raises:
        InvalidRequestError: a geometric mean without weights, where the checkpoint has an arithmetic one.
    """
    if spec is None:
        return None
    if spec.trained is not None and spec.new is not None:
        trained, new = Weights(**spec.trained.model_dump()), Weights(**spec.new.model_dump())
        return Balance(mean=spec.mean, trained=trained, new=new)
    if spec.mean == default.mean:
        return default
    if spec.mean == "arithmetic":
        return Balance.arithmetic()
    raise invalid("balance", "this checkpoint has no weights for a geometric mean; give trained and new")


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
