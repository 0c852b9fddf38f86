"""What `/v1/models` tells of a model, as plain values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from model.storage.serving_state import PolicyKind, ServingState
from service.hot_loading.loaded import LoadedVersion
from service.schemas.models import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionStatus:
    """A version in memory.

    Attributes:
        version, digest, untrained, variant, dtype, license: of `ModelInfo`.
        card: its JSON values, if it has one.
        device: names of all its devices, with commas between.
        role: "draining" ones only finish what they began.
        in_flight: requests that it answers at the moment.
        loaded_at, load_seconds: when it was ready, and how long that took.
    """

    version: int
    digest: str
    untrained: bool
    variant: str
    device: str
    dtype: str
    license: str | None
    card: dict[str, Any] | None
    role: Role
    in_flight: int
    loaded_at: datetime
    load_seconds: float

    @classmethod
    def of(cls, loaded: LoadedVersion, role: Role) -> Self:
        """What there is to tell of a version."""
        info = loaded.info
        return cls(
            version=info.version,
            digest=info.digest,
            untrained=info.untrained,
            variant=info.variant,
            device=",".join(loaded.devices),
            dtype=info.dtype,
            license=info.license,
            card=None if info.card is None else info.card.to_dict(),
            role=role,
            in_flight=loaded.in_flight,
            loaded_at=loaded.loaded_at,
            load_seconds=loaded.seconds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A version that is not loaded again.

    Attributes:
        version: its number.
        reason: what is wrong with it.
        since: when it was refused.
        fingerprint: of its files, as of `RegistryVersion`; with another one it gets another chance.
    """

    version: int
    reason: str
    since: datetime
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfinished:
    """A version whose files are not all here yet, or not whole.

    Attributes:
        version: its number.
        reason: what it lacks.
        since: when it was first seen.
    """

    version: int
    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the registry's serving.json asks for.

    Attributes:
        revision, policy, version, canary, percent, changed_by, changed_at: of `ServingState`.
        obeyed: whether what serves is what is asked for.
    """

    revision: int
    policy: PolicyKind
    version: int | None
    canary: int | None
    percent: int | None
    changed_by: str
    changed_at: datetime
    obeyed: bool

    @classmethod
    def of(cls, state: ServingState, *, obeyed: bool) -> Self:
        """What there is to tell of a state."""
        return cls(
            revision=state.revision,
            policy=state.policy,
            version=state.version,
            canary=state.canary,
            percent=state.percent,
            changed_by=state.changed_by,
            changed_at=datetime.fromisoformat(state.changed_at),
            obeyed=obeyed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus:
    """A model.

    Attributes:
        name: of the model.
        default: whether it answers requests that name no model.
        policy: "latest", "canary:PERCENT", "pinned", or "fixed" without a registry.
        pinned: the version it stays at, if any.
        asked: by the registry; None where it does not, and the settings count.
        versions: in memory, the current one first.
        quarantined: newest first.
        unfinished: newest first; each is looked at again.
        last_error: why the last look at the registry failed, for administrators: it may name places and
            addresses; None if it did not.
        public_error: the same for everybody, by its kind.
        last_checked_at: when the registry last answered.
    """

    name: str
    default: bool
    policy: str
    pinned: int | None
    asked: Asked | None
    versions: list[VersionStatus]
    quarantined: list[Quarantined]
    unfinished: list[Unfinished]
    last_error: str | None
    public_error: str | None
    last_checked_at: datetime | None
