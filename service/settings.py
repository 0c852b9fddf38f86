"""Settings of the service: the only place that reads the environment.

A value comes from, in this order: a flag, `EBSEG_<NAME>` in the environment, the TOML file, the default.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from model.packaged import packaged_checkpoint
from model.vocabulary import MAX_CLASSES
from service.options import OPTIONS

PREFIX = "EBSEG_"


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
    host: str = _option("host", "127.0.0.1", min_length=1)
    port: int = _option("port", 8000, ge=0, le=65535)
    max_bytes: int = _option("max_bytes", 20 << 20, ge=1)
    # Pillow starts to warn of decompression bombs above this many pixels.
    max_pixels: int = _option("max_pixels", 50_000_000, ge=1, le=89_478_485)
    max_classes: int = _option("max_classes", MAX_CLASSES, ge=1, le=MAX_CLASSES)
    timeout_ms: int = _option("timeout_ms", 30_000, ge=1)
    max_timeout_ms: int = _option("max_timeout_ms", 120_000, ge=1)
    body_timeout_s: float = _option("body_timeout_s", 10.0, gt=0)
    drain_timeout_s: int = _option("drain_timeout_s", 30, ge=1)
    decode_threads: int = _option("decode_threads", 4, ge=1, le=256)
    max_pending: int = _option("max_pending", 64, ge=1)
    device: str = _option("device", "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "bfloat16", "float16"] = _option("dtype", "float32")
    log_level: Literal["debug", "info", "warning", "error"] = _option("log_level", "info")
    log_format: Literal["json", "text"] = _option("log_format", "json")

    @model_validator(mode="after")
    def _timeouts_fit(self) -> "Settings":
        if self.timeout_ms > self.max_timeout_ms:
            raise ValueError(
                f"timeout_ms ({self.timeout_ms}) is above max_timeout_ms ({self.max_timeout_ms})"
            )
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
        return init_settings, env_settings


class _FileSource(PydanticBaseSettingsSource):
    """The values of a TOML file, already read."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]):
        super().__init__(settings_cls)
        self.values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.values


def load_settings(flags: dict[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Settings from all sources.

    Args:
        flags: values that win over everything else, by field name; text is parsed.
        config: a TOML file of values by field name.

    Raises:
        SettingsError: one line that names the setting and what is wrong with it.
    """
    values = _read_toml(config) if config is not None else {}

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **sources: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            own = super().settings_customise_sources(settings_cls, *args, **sources)
            return (*own, _FileSource(settings_cls, values))

    try:
        loaded = WithFile(**(flags or {}))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem) for problem in error.errors())) from None
    return Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})


def to_toml(settings: Settings) -> str:
    """A TOML file that gives these settings; each with its description."""
    lines = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        lines.append(f"# {field.description}")
        lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the configuration file cannot be read: {error}") from None
    except ValueError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None


def _explain(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {name!r}"
    if not name:
        return str(problem["msg"]).removeprefix("Value error, ")
    flag = name.replace("_", "-")
    return f"{name}: {problem['msg']} (from --{flag}, {PREFIX}{name.upper()} or the configuration file)"
