"""Settings of the service, from flags, environment and file.

A value comes from, in this order: a flag, `EBSEG_<NAME>` in the environment, the TOML file, the default.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from model.errors import nearest
from model.storage.packaged import packaged_checkpoint
from model.urls import QUOTED, shown
from model.vocabulary.classes import MAX_CLASSES
from service.options import MAX_BYTES, MAX_PIXELS, MOST_PICTURES, OPTIONS
from service.setting_values.hosts import Buckets, Hosts
from service.setting_values.keys import KeyDigests, key_names
from service.setting_values.origins import Origins
from service.setting_values.redis_url import redis_place
from service.setting_values.units import (
    NO_SIZE,
    Milliseconds,
    Seconds,
    Size,
    WholeMilliseconds,
    WholeSeconds,
)
from service.setting_values.words import in_words

PREFIX = "EBSEG_"
_DEVICE = r"(cpu|cuda(:\d+)?)"
DEVICES = rf"^(auto|{_DEVICE}(,{_DEVICE})*)$"
FORMS = {  # of settings that have a pattern
    "device": "must be auto, cpu, cuda, cuda:N, or several of the last three with commas between",
    "root_path": "must be a path such as /ebseg, with no slash at its end",
    "otlp_endpoint": "must be a URL that begins with http:// or https://",
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
# variables of ours that are no settings: the keys that commands and examples call a service with
OTHER_VARIABLES = frozenset({"EBSEG_API_KEY", "EBSEG_ADMIN_KEY"})
_LINK = re.compile(r"(.+_)?(service_(host|port(_.+)?)|port_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)")
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_OTEL_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTEL_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class SettingsError(Exception):
    """A setting that cannot be used; stops the command."""


def _option(name: str, default: Any, **limits: Any) -> Any:
    return Field(default, description=OPTIONS[name], **limits)


class Settings(BaseSettings):
    """All settings; `options.py` says what each means."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True, allow_inf_nan=False
    )

    checkpoint: Path | None = _option("checkpoint", None)
    registry: str | None = _option("registry", None, min_length=1)
    model: str | None = _option("model", None, min_length=1)
    registry_poll_s: Seconds = _option("registry_poll_s", 5.0, gt=0)
    cache_dir: Path | None = _option("cache_dir", None)
    map_weights: bool = _option("map_weights", False)
    canary_requests: int = _option("canary_requests", 200, ge=1)
    canary_slowdown: float = _option("canary_slowdown", 2.0, ge=1)
    canary_s: Seconds = _option("canary_s", 3600.0, gt=0)
    host: str = _option("host", "127.0.0.1", min_length=1)
    port: int = _option("port", 8000, ge=0, le=65535)
    workers: int = _option("workers", 1, ge=1, le=64)
    root_path: str | None = _option("root_path", None, pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    max_bytes: Size = _option("max_bytes", ByteSize(MAX_BYTES), ge=1)
    # Pillow starts to warn of decompression bombs above this many pixels.
    max_pixels: int = _option("max_pixels", MAX_PIXELS, ge=1, le=89_478_485)
    max_pictures: int = _option("max_pictures", 16, ge=1, le=MOST_PICTURES)
    max_classes: int = _option("max_classes", 1024, ge=1, le=MAX_CLASSES)
    max_vocabularies_per_key: int = _option("max_vocabularies_per_key", 100, ge=1, le=1000)
    timeout_ms: WholeMilliseconds = _option("timeout_ms", 30_000, ge=1)
    max_timeout_ms: WholeMilliseconds = _option("max_timeout_ms", 120_000, ge=1)
    body_timeout_s: Seconds = _option("body_timeout_s", 30.0, gt=0)
    header_timeout_s: Seconds = _option("header_timeout_s", 15.0, gt=0)
    max_header_bytes: Size = _option("max_header_bytes", ByteSize(64 << 10), ge=1024)
    answer_timeout_s: Seconds = _option("answer_timeout_s", 120.0, gt=0)
    min_rate: int = _option("min_rate", 1024, ge=0)
    stall_s: Seconds = _option("stall_s", 20.0, gt=0)
    idle_timeout_s: Seconds = _option("idle_timeout_s", 75.0, gt=0)
    max_connections: int = _option("max_connections", 4096, ge=1)
    max_connections_per_address: int = _option("max_connections_per_address", 0, ge=0)
    drain_timeout_s: WholeSeconds = _option("drain_timeout_s", 30, ge=1)
    decode_threads: int | None = _option("decode_threads", None, ge=1, le=256)
    max_pending: int = _option("max_pending", 256, ge=1)
    max_pending_pixels: int = _option("max_pending_pixels", 64_000_000, ge=1)
    max_host_bytes: Size | None = _option("max_host_bytes", None, ge=1)
    max_batch_size: int = _option("max_batch_size", 8, ge=1, le=256)
    max_batch_delay_ms: Milliseconds = _option("max_batch_delay_ms", 0.0, ge=0)
    ageing_s: Seconds = _option("ageing_s", 10.0, gt=0)
    watchdog_s: Seconds = _option("watchdog_s", 120.0, gt=0)
    redis_url: SecretStr | None = _option("redis_url", None)
    redis_timeout_ms: WholeMilliseconds = _option("redis_timeout_ms", 50, ge=1)
    text_cache_bytes: Size = _option("text_cache_bytes", ByteSize(256 << 20), ge=0)
    text_cache_ttl_s: Seconds = _option("text_cache_ttl_s", 2_592_000.0, ge=1)
    prediction_cache_bytes: Size = _option("prediction_cache_bytes", ByteSize(256 << 20), ge=0)
    url_hosts: Hosts = _option("url_hosts", ())
    url_private_hosts: Hosts = _option("url_private_hosts", ())
    url_buckets: Buckets = _option("url_buckets", ())
    url_timeout_s: Seconds = _option("url_timeout_s", 10.0, gt=0)
    api_keys: KeyDigests = _option("api_keys", ())
    admin_keys: KeyDigests = _option("admin_keys", ())
    cors_origins: Origins = _option("cors_origins", ())
    share_caches: bool = _option("share_caches", False)
    otlp_endpoint: str | None = _option("otlp_endpoint", None, pattern=r"^https?://")
    device: str = _option("device", "auto", pattern=DEVICES)
    padding: Literal["own", "few"] = _option("padding", "own")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _option("dtype", "float32")
    log_level: Literal["debug", "info", "warning", "error"] = _option("log_level", "info")
    log_format: Literal["auto", "json", "text"] = _option("log_format", "auto")

    @model_validator(mode="after")
    def _fit(self) -> "Settings":
        if self.timeout_ms > self.max_timeout_ms:
            raise ValueError(
                f"timeout_ms ({self.timeout_ms}) is above max_timeout_ms ({self.max_timeout_ms})"
            )
        if (self.registry is None) != (self.model is None):
            raise ValueError("registry and model go together: the one says where, the other what to serve")
        if self.padding == "few" and set(self.device.split(",")) == {"cpu"}:
            raise ValueError("padding: few is of use on a GPU; a CPU runs images one by one, take own")
        if self.registry is not None and self.checkpoint is not None:
            raise ValueError("give either checkpoint or registry")
        if self.redis_url is not None:
            _check_address("redis_url", redis_place(self.redis_url.get_secret_value()).url)
        _check_address("otlp_endpoint", self.otlp_endpoint)
        names = [*key_names(self.api_keys, "api"), *key_names(self.admin_keys, "admin")]
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(f"api_keys and admin_keys: two keys have the name {twice[0]}")
        return self

    def checkpoint_folder(self) -> Path:
        """The checkpoint's folder: the one that is set, or else the one that comes with the package.

        Raises:
            CheckpointError: none is set, and the package holds none.
        """
        return packaged_checkpoint() if self.checkpoint is None else self.checkpoint

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """No .env files and no secret folders: only what the module's docstring promises."""
        return init_settings, _Environment(settings_cls)


class _Environment(EnvSettingsSource):
    """Our variables, without those that Kubernetes makes for a Service of our name."""

    def __call__(self) -> dict[str, Any]:
        """The values by field name."""
        found = super().__call__()
        return {name: value for name, value in found.items() if not _is_link(name, str(value))}


class _Platform(InitSettingsSource):
    """What platforms that run containers say: the port, in `PORT`."""

    def __init__(self, settings_cls: type[BaseSettings]):
        port = os.environ.get("PORT", "")
        if port and not (port.isascii() and port.isdecimal()):
            raise SettingsError("PORT is no number of a port; it is the default of the setting port")
        super().__init__(settings_cls, {"port": port} if port else {})


def load_settings(flags: dict[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Settings from all sources.

    Args:
        flags: values that win over everything else, by field name; text is parsed.
        config: a TOML file of values by field name.

    Raises:
        SettingsError: one line that names the setting and what is wrong with it; a variable or a key of the
            file that is no setting.
    """
    _refuse_unknown_variables()

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **sources: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            own = super().settings_customise_sources(settings_cls, *args, **sources)
            file = () if config is None else (_toml_source(settings_cls, config),)
            return (*own, *file, _Platform(settings_cls))

    try:
        loaded = WithFile(**(flags or {}))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem) for problem in error.errors())) from None
    return Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})


def refuse_open_by_mistake(settings: Settings) -> None:
    """Raises SettingsError where a client's variable is set in the place of the service's."""
    if os.environ.get("EBSEG_API_KEY") and not settings.api_keys:
        raise SettingsError(
            "EBSEG_API_KEY is the key that commands call a service with, and no key of this service, which "
            "would be open to all. Give its keys in EBSEG_API_KEYS, or unset EBSEG_API_KEY to serve without"
        )


def _check_address(name: str, url: str | None) -> None:
    try:
        _ = urlsplit(url or "").port
    except ValueError:  # its text may hold a part of a password
        raise ValueError(f"{name} cannot be read: {QUOTED}") from None


def _refuse_unknown_variables() -> None:
    """Raises SettingsError for a variable that begins as our settings do, and is none."""
    for variable, value in os.environ.items():
        name = variable.upper()
        setting = name.removeprefix(PREFIX).lower()
        if not name.startswith(PREFIX) or setting in Settings.model_fields:
            continue
        if name not in OTHER_VARIABLES and not _is_link(setting, value):
            meant = _meant(setting, PREFIX, str.upper)
            raise SettingsError(f"{variable} is no setting{meant}; `ebseg serve --help` names all")


def _is_link(name: str, value: str) -> bool:
    """Whether Kubernetes made the variable, for a Service of our name or one that begins with it.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return bool(_LINK.fullmatch(name) or (name.endswith("port") and _LINK_ADDRESS.fullmatch(value)))


def _meant(name: str, prefix: str = "", form: Callable[[str], str] = str) -> str:
    """A question, where a setting has nearly this name."""
    near = nearest(name, Settings.model_fields)
    return f" (did you mean {prefix}{form(near)}?)" if near else ""


def _toml_source(settings_cls: type[BaseSettings], path: Path) -> TomlConfigSettingsSource:
    try:
        path.open("rb").close()  # a file that is not there would count as an empty one
        return TomlConfigSettingsSource(settings_cls, path)
    except OSError as error:
        raise SettingsError(f"the configuration file cannot be read: {error}") from None
    except ValueError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What OpenTelemetry's standard variables say of traces, as far as its own code does not read it in time.

    Attributes:
        disabled: `OTEL_SDK_DISABLED`.
        traces: the variable that asks for traces by OTLP; None if none does.
    """

    disabled: bool
    traces: str | None


def telemetry_from_environment() -> Telemetry:
    """Whether `OTEL_*` variables ask for traces; all else of them is read by OpenTelemetry itself.

    Raises:
        SettingsError: they ask for an exporter or a protocol that there is not.
    """
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    asking = [name for name in _OTEL_ENDPOINTS if os.environ.get(name, "").strip()]
    if disabled or exporter == "none":
        return Telemetry(disabled, None)
    if exporter not in ("", "otlp"):
        raise SettingsError(f"OTEL_TRACES_EXPORTER is {exporter!r}; traces go by otlp, or nowhere with none")
    traces = "OTEL_TRACES_EXPORTER" if exporter else next(iter(asking), None)
    protocol = next((value for name in _OTEL_PROTOCOLS if (value := os.environ.get(name, "").strip())), "")
    if traces is not None and protocol not in ("", "http/protobuf"):
        raise SettingsError(
            f"traces go by http/protobuf only, and OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; leave it "
            "out, and name the collector's port for HTTP (4318)"
        )
    return Telemetry(False, traces)


def prefer_stable_telemetry_names() -> None:
    """Spans get the attributes of the stable semantic conventions, unless the environment says otherwise.

    OpenTelemetry's middleware asks the environment alone for it, and by itself takes names that are no longer
    in use.
    """
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


def to_toml(settings: Settings) -> str:
    """A TOML file that gives these settings; each with its description."""
    lines = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        lines.append(f"# {field.description}")
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, str) and shown(value) != value:
            lines.append(f"# {name} holds a secret; give it as {PREFIX}{name.upper()}")
            continue
        lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{"sha256:" if _DIGEST.fullmatch(one) else ""}{one}"' for one in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _explain(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {name!r}{_meant(name)}"
    if not name:
        return in_words(problem)
    flag = name.replace("_", "-")
    if problem["type"].startswith("byte_size"):
        problem = {**problem, "msg": NO_SIZE}
    if problem["type"] == "string_pattern_mismatch":
        problem = {**problem, "msg": FORMS[name]}
    message = in_words(problem)
    return f"{name}: {message} (from --{flag}, {PREFIX}{name.upper()} or the configuration file)"
