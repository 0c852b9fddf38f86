"""What pip is configured with reaches uv."""

import sys
from pathlib import Path

import pytest

from requirements import pip_settings
from requirements.errors import SetupError
from requirements.pip_settings import for_uv

STRATEGY = ("--index-strategy", "unsafe-best-match")


def test_files_and_variables_are_read_in_pips_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://everywhere/simple\ntimeout = 5\ncert = /of/all.pem\n"
        "[install]\nindex-url = https://install/simple\nextra-index-url = https://a/simple\n    https://b/simple\n"
        "[download]\nindex-url = https://download/simple\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_TIMEOUT", "7.6")
    found = pip_settings.read(Path(sys.executable))
    assert found["index-url"] == "https://install/simple"
    assert found["extra-index-url"].split() == ["https://a/simple", "https://b/simple"]
    assert found["timeout"] == "7.6"
    assert for_uv({"timeout": found["timeout"]}, {})[1] == {"UV_HTTP_TIMEOUT": "8"}


def test_a_broken_configuration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    with pytest.raises(SetupError, match=r"pip's configuration cannot be read .*pip\.conf"):
        pip_settings.read(Path(sys.executable))


def test_a_python_without_pip_has_no_configuration(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $0: No module named pip >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    assert pip_settings.read(python) == {}


@pytest.mark.parametrize(
    ("settings", "flags", "variables"),
    [
        ({"index-url": "https://m/simple"}, [], {"UV_DEFAULT_INDEX": "https://m/simple"}),
        (
            {"extra-index-url": "https://a/s\nhttps://b/s"},
            [("--index", "https://a/s"), ("--index", "https://b/s")],
            {},
        ),
        ({"find-links": "https://a/files.html"}, [("--find-links", "https://a/files.html")], {}),
        ({"trusted-host": "a b"}, [("--allow-insecure-host", "a"), ("--allow-insecure-host", "b")], {}),
        ({"no-binary": "a,b"}, [("--no-binary", "a"), ("--no-binary", "b")], {}),
        ({"only-binary": ":all:"}, [("--only-binary", ":all:")], {}),
        ({"no-index": "true"}, [("--no-index",)], {}),
        ({"no-index": "0"}, [], {}),
        ({"no-cache-dir": "1"}, [("--no-cache",)], {}),
        ({"cert": "/c.pem"}, [], {"SSL_CERT_FILE": "/c.pem"}),
        ({"client-cert": "/c.pem"}, [], {"SSL_CLIENT_CERT": "/c.pem"}),
        ({"proxy": "me:it@p:3128"}, [], dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://me:it@p:3128")),
        ({"default-timeout": "180", "retries": "3"}, [], {"UV_HTTP_TIMEOUT": "180", "UV_HTTP_RETRIES": "3"}),
        ({"keyring-provider": "subprocess"}, [], {"UV_KEYRING_PROVIDER": "subprocess"}),
        ({"keyring-provider": "import"}, [], {}),
        ({"disable-pip-version-check": "1", "require-virtualenv": "1", "index-url": ""}, [], {}),
    ],
)
def test_each_option_has_its_counterpart(
    settings: dict[str, str], flags: list[tuple[str, ...]], variables: dict[str, str]
) -> None:
    assert for_uv(settings, {}) == ([*flags, STRATEGY], variables)


def test_folders_are_named_as_uv_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simple, wheels, cap = tmp_path / "simple", tmp_path / "wheels", tmp_path / "cap.txt"
    simple.mkdir()
    wheels.mkdir()
    cap.write_text("torch<3\n", encoding="utf-8")
    settings = {
        "extra-index-url": f"{simple.as_uri()} {simple} https://a/simple",
        "find-links": f"{wheels} {tmp_path / 'absent'} {wheels.as_uri()}",
        "constraint": str(cap),
    }
    flags, variables = for_uv(settings, {})
    assert flags == [
        ("--index", simple.as_uri()),
        ("--index", simple.as_uri()),
        ("--index", "https://a/simple"),
        ("--find-links", str(wheels)),
        ("--find-links", str(wheels)),
        ("--constraint", str(cap)),
        STRATEGY,
    ]
    assert variables == {}
    assert capsys.readouterr().err.startswith(
        f"passing over {tmp_path / 'absent'}: pip is configured with it"
    )
    assert pip_settings.folders(settings) == [simple, simple, wheels, tmp_path / "absent", wheels]
    assert pip_settings.without_folders(settings)["extra-index-url"] == "https://a/simple"
    assert pip_settings.without_folders(settings)["find-links"] == ""


def test_a_constraint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="which does not exist"):
        for_uv({"constraint": str(tmp_path / "cap.txt")}, {})


@pytest.mark.parametrize(
    ("option", "value", "variable"),
    [
        ("index-url", "https://m", "UV_DEFAULT_INDEX"),
        ("index-url", "https://m", "UV_INDEX_URL"),
        ("extra-index-url", "https://m", "UV_INDEX"),
        ("find-links", "https://m", "UV_FIND_LINKS"),
        ("cert", "/c.pem", "SSL_CERT_FILE"),
        ("proxy", "http://p", "HTTPS_PROXY"),
        ("proxy", "http://p", "https_proxy"),
    ],
)
def test_what_uv_was_told_itself_comes_first(option: str, value: str, variable: str) -> None:
    flags, variables = for_uv({option: value}, {variable: "its own", "UV_INDEX_STRATEGY": "first-index"})
    assert flags == []
    assert variable.upper() not in variables
