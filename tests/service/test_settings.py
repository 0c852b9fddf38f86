"""Where settings come from, and that each of them matters."""

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize

from model.errors import CheckpointError
from model.storage import packaged
from service.options import OPTIONS
from service.settings import FORMS, OTHER_VARIABLES, Settings, SettingsError, load_settings, to_toml

SOURCES = Path(__file__).parents[2] / "service"


def test_flags_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ebseg.toml"
    file.write_text('port = 1\nhost = "file"\nmax_bytes = 1\ncheckpoint = "a/b"\n')
    monkeypatch.setenv("EBSEG_PORT", "2")
    monkeypatch.setenv("EBSEG_HOST", "environment")
    monkeypatch.setenv("EBSEG_MAX_PIXELS", "")  # as an unset variable
    loaded = load_settings({"port": "3"}, file)
    assert (loaded.port, loaded.host, loaded.max_bytes) == (3, "environment", 1)
    assert loaded.checkpoint_folder() == Path("a/b")
    assert loaded.max_pixels == 50_000_000
    assert type(loaded) is Settings


def test_a_platforms_port_counts_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EBSEG_PORT", raising=False)
    file = tmp_path / "ebseg.toml"
    file.write_text("port = 1\n")
    monkeypatch.setenv("PORT", "9000")
    assert load_settings().port == 9000
    assert load_settings({}, file).port == 1
    assert load_settings({"port": "3"}).port == 3
    monkeypatch.setenv("EBSEG_PORT", "2")
    assert load_settings().port == 2
    monkeypatch.delenv("EBSEG_PORT")
    monkeypatch.setenv("PORT", "")
    assert load_settings().port == 8000
    for wrong, message in (("tcp://10.0.0.1:80", "PORT is no number"), ("70000", "port: .*65535")):
        monkeypatch.setenv("PORT", wrong)
        with pytest.raises(SettingsError, match=message):
            load_settings()


@pytest.mark.parametrize(
    ("flags", "text", "message"),
    [
        ({"port": "high"}, "", r"port: must be a whole number.*--port, EBSEG_PORT"),
        ({"port": "70000"}, "", "port: .*65535"),
        ({"max_classes": "4097"}, "", "max_classes: .*4096"),
        ({"device": "tpu"}, "", "device: "),
        ({"dtype": "int8"}, "", "dtype: .*float32"),
        ({"body_timeout_s": "nan"}, "", "body_timeout_s: "),
        ({"timeout_ms": "130000"}, "", "timeout_ms .*130000.* above max_timeout_ms"),
        ({}, "prot = 3", "no setting 'prot'"),
        ({}, "port = [1]", "port: "),
        ({}, "port = ", "not valid TOML"),
    ],
)
def test_unusable_settings_are_named(tmp_path: Path, flags: dict[str, Any], text: str, message: str) -> None:
    file = tmp_path / "ebseg.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(flags, file)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("EBSEG_REDIS_ULR", r"EBSEG_REDIS_ULR is no setting \(did you mean EBSEG_REDIS_URL\?\)"),
        ("EBSEG_MAXPIXELS", r"did you mean EBSEG_MAX_PIXELS\?"),
        ("ebseg_prot", r"ebseg_prot is no setting \(did you mean EBSEG_PORT\?\)"),
        ("EBSEG_XYZZY", "EBSEG_XYZZY is no setting; `ebseg serve --help`"),
        ("EBSEG_", "EBSEG_ is no setting"),
        ("EBSEG_REDIS_PORT", "EBSEG_REDIS_PORT is no setting"),  # without an address it is nobody's link
    ],
)
def test_unknown_variables_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, expected: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=expected):
        load_settings()


def test_an_unknown_key_of_the_file_is_told_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "ebseg.toml"
    file.write_text("max_pixel = 3\n")
    with pytest.raises(SettingsError, match=r"no setting 'max_pixel' \(did you mean max_pixels\?\)"):
        load_settings({}, file)


def test_variables_of_commands_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in OTHER_VARIABLES:
        monkeypatch.setenv(variable, "a key of sixteen letters")
    monkeypatch.setenv("ebseg_port", "7")  # as pydantic-settings reads them
    assert load_settings().port == 7


LINKS = """
EBSEG_SERVICE_HOST=10.0.0.1
EBSEG_SERVICE_PORT=8000
EBSEG_SERVICE_PORT_HTTP=8000
EBSEG_PORT=tcp://10.0.0.1:8000
EBSEG_PORT_8000_TCP=tcp://10.0.0.1:8000
EBSEG_PORT_8000_TCP_PROTO=tcp
EBSEG_PORT_8000_TCP_PORT=8000
EBSEG_PORT_8000_TCP_ADDR=10.0.0.1
EBSEG_REDIS_SERVICE_HOST=fd00::1
EBSEG_REDIS_SERVICE_PORT=6379
EBSEG_REDIS_PORT=tcp://[fd00::1]:6379
EBSEG_REDIS_PORT_6379_TCP=tcp://[fd00::1]:6379
EBSEG_REDIS_PORT_6379_TCP_ADDR=fd00::1
"""


def test_links_of_kubernetes_are_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it gives every pod beside Services named ebseg and ebseg-redis, unless that is switched off."""
    for line in LINKS.split():
        monkeypatch.setenv(*line.split("=", 1))
    assert load_settings().port == 8000
    file = tmp_path / "ebseg.toml"
    file.write_text("port = 9\n")
    assert load_settings({}, file).port == 9
    assert load_settings({"port": "10"}, file).port == 10
    with pytest.raises(SettingsError, match="port: "):  # it is a link as a variable only
        load_settings({"port": "tcp://10.0.0.1:8000"})


@pytest.mark.parametrize(
    ("content", "expected"), [(b"\xff = 1", "not valid TOML"), (b"port = 1\nport = 2", "not valid TOML")]
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "ebseg.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=expected):
        load_settings({}, file)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, tmp_path)  # a folder


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, tmp_path / "nothing.toml")


def test_checkpoint_is_the_packaged_one_unless_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path)
    with pytest.raises(CheckpointError, match=r"comes with ebseg is missing.*EBSEG_CHECKPOINT"):
        load_settings().checkpoint_folder()
    folder = tmp_path / "ebseg-tiny" / "3"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert load_settings().checkpoint_folder() == folder
    assert load_settings({"checkpoint": "x/y"}).checkpoint_folder() == Path("x/y")


def test_printed_settings_load_as_the_same(tmp_path: Path) -> None:
    chosen = load_settings(
        {
            "port": "9",
            "host": 'a"b\\c',
            "checkpoint": "x/y",
            "body_timeout_s": "0.5",
            "api_keys": "k" * 20,
            "redis_url": "redis://cache/1",
        }
    )
    file = tmp_path / "ebseg.toml"
    file.write_text(to_toml(chosen))
    assert load_settings({}, file) == chosen
    file.write_text(to_toml(load_settings()))
    assert load_settings({}, file) == load_settings()


def test_only_digests_of_keys_are_kept() -> None:
    digest = hashlib.sha256(b"correct horse battery").hexdigest()
    by_text = load_settings({"api_keys": f"correct horse battery, sha256:{'0' * 64}"})
    assert by_text.api_keys == (digest, "0" * 64)
    assert "horse" not in repr(by_text) + to_toml(by_text)
    with pytest.raises(SettingsError, match="api_keys: a key needs at least 16 characters"):
        load_settings({"api_keys": "short"})
    with pytest.raises(SettingsError, match="admin_keys: must be keys"):
        load_settings({"admin_keys": 7})


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBSEG_ADMIN_KEYS", f"{'a' * 16},{'b' * 16}")
    assert load_settings().admin_keys == tuple(
        hashlib.sha256(text.encode() * 16).hexdigest() for text in ("a", "b")
    )


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("redis_url", "redis://:hunter-2@cache:6379/0"),
        ("redis_url", "redis://cache:6379/0?password=hunter-2"),
        ("redis_url", "unix:///run/redis.sock?password=hunter-2"),
        ("otlp_endpoint", "https://collector/v1/traces?token=hunter-2"),
        ("otlp_endpoint", "https://hunter-2@collector/v1/traces"),
        ("registry", "s3://key:hunter-2@bucket/registry"),
    ],
)
def test_a_secret_of_a_url_is_not_printed(name: str, url: str) -> None:
    hidden = to_toml(load_settings({name: url} | ({"model": "m"} if name == "registry" else {})))
    assert "hunter-2" not in hidden
    assert f"# {name} holds a secret; give it as EBSEG_{name.upper()}" in hidden


@pytest.mark.parametrize("name", ["redis_url", "otlp_endpoint"])
def test_a_password_that_is_not_quoted_is_not_repeated(name: str) -> None:
    scheme = "redis" if name == "redis_url" else "http"
    with pytest.raises(SettingsError, match=f"{name} cannot be read: .*%2F") as raised:
        load_settings({name: f"{scheme}://:hunter/2@cache"})
    assert "hunter" not in str(raised.value)


def test_addresses_of_redis() -> None:
    plain = to_toml(load_settings({"redis_url": "redis://cache:6379/0"}))
    assert 'redis_url = "redis://cache:6379/0"' in plain
    with pytest.raises(SettingsError, match="redis_url must begin with redis://"):
        load_settings({"redis_url": "http://cache"})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"registry": "r"}, "registry and model go together"),
        ({"model": "m"}, "registry and model go together"),
        ({"registry": "r", "model": "m", "checkpoint": "c"}, "either checkpoint or registry"),
        ({"padding": "few", "device": "cpu,cpu"}, "padding: few is of use on a GPU"),
        ({"device": "tpu"}, "device: must be auto, cpu, cuda, cuda:N, or several of"),
        ({"device": "cpu,"}, "device: must be auto, cpu, cuda, cuda:N, or several of"),
        ({"root_path": "x/"}, "root_path: must be a path such as /ebseg"),
    ],
)
def test_settings_that_do_not_go_together(flags: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        load_settings(flags)


def test_every_setting_is_described_with_its_default() -> None:
    assert list(OPTIONS) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        expected = re.search(r"\(default: (.*)\)$", OPTIONS[name])
        assert (expected.group(1) if expected else None) == (
            None if field.default in (None, ()) else _as_documented(field.default)
        )


def _as_documented(default: object) -> str:
    if isinstance(default, ByteSize):
        return default.human_readable(separator=" ").replace(".0 ", " ")
    return str(default).replace("False", "false")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("20 MiB", 20 << 20), ("1.5GiB", 3 << 29), ("3 MB", 3_000_000), ("77", 77)),
        *(("100Mi", 100 << 20), ("100 Mi", 100 << 20), ("2k", 2000)),
    ],
)
def test_sizes_have_units(text: str, value: int) -> None:
    assert load_settings({"max_bytes": text}).max_bytes == value


@pytest.mark.parametrize("text", ["", "-1", "MiB", "20 parsecs", "nan"])
def test_sizes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SettingsError, match="max_bytes: must be a size such as 20 MiB, or a number of bytes"):
        load_settings({"max_bytes": text})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("timeout_ms", text, 30_000) for text in ("30000", "30s", "30 s", "0.5 min")),
        *(("body_timeout_s", text, 0.5) for text in ("0.5", "500ms", "500 ms")),
        *(("drain_timeout_s", text, 60) for text in ("60", "1 min", "1m")),
        ("max_batch_delay_ms", "0.25 ms", 0.25),
    ],
)
def test_times_have_units(name: str, text: str, value: float) -> None:
    assert getattr(load_settings({name: text}), name) == value


def test_times_that_cannot_be_read() -> None:
    with pytest.raises(
        SettingsError, match="stall_s: must be a time such as 30 s or 500 ms, or a number of s"
    ):
        load_settings({"stall_s": "3 parsecs"})
    with pytest.raises(SettingsError, match="drain_timeout_s: must be a whole number"):
        load_settings({"drain_timeout_s": "500 ms"})


def test_every_size_and_time_takes_units() -> None:
    for name in Settings.model_fields:
        if name.endswith("_bytes"):
            assert getattr(load_settings({name: "1Mi"}), name) == 1 << 20
        elif name.endswith(("_s", "_ms")) and name != "timeout_ms":
            assert getattr(load_settings({name: "200 s"}), name) == (200_000 if name.endswith("_ms") else 200)


def test_patterns_are_told_in_words() -> None:
    patterned = {
        name
        for name, field in Settings.model_fields.items()
        if any(getattr(one, "pattern", None) for one in field.metadata)
    }
    assert patterned == set(FORMS)


def test_every_setting_is_read_somewhere() -> None:
    read = {
        node.attr
        for path in SOURCES.rglob("*.py")
        if path.name != "settings.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and (getattr(node.value, "id", None) == "settings" or getattr(node.value, "attr", None) == "settings")
    }
    by_method = {"checkpoint"} if "checkpoint_folder" in read else set()
    assert set(Settings.model_fields) <= read | by_method
