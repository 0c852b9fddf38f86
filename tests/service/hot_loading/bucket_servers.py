"""Servers that speak Google's and Azure's storage protocols: fake-gcs-server and Azurite, a bucket each.

`tests/install_tools.sh` installs them in `.venv`.
"""

import base64
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import adlfs
import fsspec
import gcsfs.core
import pytest
from fsspec.registry import _registry

from service.bench.process import free_port
from tests.waiting import wait_until

PROGRAMS = Path(sys.prefix) / "bin"
AZURITE = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
ACCOUNT = "tests"


@contextmanager
def google_server() -> Iterator[str]:
    """URL of a bucket, and settings of gcsfs that lead to its server."""
    program = shutil.which("fake-gcs-server", path=os.pathsep.join((str(PROGRAMS), os.environ["PATH"])))
    assert program is not None, "there is no fake-gcs-server; `make tools` installs it"
    port = free_port()
    place = f"127.0.0.1:{port}"
    command = [program, "-backend=memory", "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
    with ExitStack() as stack:
        stack.enter_context(_started([*command, f"-public-host={place}", "-log-level=error"], port))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{place}")
        patch.setenv("GCSFS_DEFAULT_PROJECT", "tests")
        # else gcsfs asks by gRPC what kind of bucket it is, which the server does not speak
        patch.setitem(_registry, "gs", gcsfs.core.GCSFileSystem)
        gcsfs.core.GCSFileSystem.clear_instance_cache()
        stack.callback(gcsfs.core.GCSFileSystem.clear_instance_cache)
        fsspec.filesystem("gs").mkdir("bucket")
        yield "gs://bucket"


@contextmanager
def azure_server(folder: Path) -> Iterator[str]:
    """URL of a container, and settings of adlfs that lead to its server, which keeps it in a folder."""
    node = shutil.which("node")
    assert node is not None, "there is no node; `make tools` installs it"
    assert AZURITE.exists(), f"there is no {AZURITE}; `make tools` installs it"
    port = free_port()
    key = base64.b64encode(b"a key for tests").decode()
    command = [node, str(AZURITE), "--blobHost=127.0.0.1", f"--blobPort={port}", f"--location={folder}"]
    command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AZURITE_ACCOUNTS", f"{ACCOUNT}:{key}")
        stack.enter_context(_started(command, port))
        patch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};",
        )
        adlfs.AzureBlobFileSystem.clear_instance_cache()
        stack.callback(adlfs.AzureBlobFileSystem.clear_instance_cache)
        fsspec.filesystem("az").mkdir("bucket")
        yield "az://bucket"


@contextmanager
def _started(command: list[str], port: int) -> Iterator[None]:
    """A server, once it takes connections."""

    def is_there() -> bool:
        assert process.poll() is None, f"{command[0]} has ended"
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(is_there, pause=0.02)
            yield
        finally:
            process.kill()
