"""Runs an image as a container engine would: its user and variables, a read-only root, a /tmp of its own."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from requirements import layers
from service.bench.process import ServerProcess, free_port

START_S, ANSWER_S, STOP_S = 180.0, 120.0, 60.0
_UNLOCKED = {"pip", "ebseg", "ebseg-client"}
# $1 is the root; the rest is what runs in it. All mounts end with the process.
_ENTER = """
set -eu
root=$1; user=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
cd "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups \\
    --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"""


def pins(layer: str) -> dict[str, str]:
    """Versions by package of a layer of the locks and of those below it."""
    lines = [line for lock in layers.files(layer) for line in layers.entries(lock)]
    return {layers.name_of(line): layers.version_of(line) for line in lines}


class Running:
    """A service that runs from an image.

    Attributes:
        exit_code: after it was stopped.
    """

    def __init__(self, container: "Container", server: ServerProcess):
        self._container = container
        self._server = server
        self.url = server.url
        self.exit_code: int | None = None

    def wait_until_ready(self) -> float:
        """Seconds until it was."""
        began = time.monotonic()
        self._server.wait()
        return time.monotonic() - began

    def require(self, *, uid: int) -> None:
        """The process runs as that user, without a capability, and may get none."""
        status = Path(f"/proc/{self._server.pid}/status").read_text(encoding="utf-8")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {str(uid)}, fields["Uid"]
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, fields
        assert fields["NoNewPrivs"] == "1", fields

    def require_read_only(self) -> None:
        """Nothing but /tmp can be written, from within."""
        inside = Path(f"/proc/{self._server.pid}/mountinfo").read_text(encoding="utf-8")
        options = {line.split()[4]: line.split()[5].split(",") for line in inside.splitlines()}
        root = str(self._container.root)
        assert "ro" in options[root if root in options else "/"], inside

    def require_healthy(self, command: list[str]) -> None:
        """The image's own health check, run beside the service."""
        assert self._container.call(command, self._server.port) == 0

    def segment(self, picture: Path, names: list[str]) -> Any:
        """The answer for a picture file."""
        with picture.open("rb") as opened:
            answer = httpx.post(
                f"{self.url}/v1/segment",
                files={"image": opened},
                data={"classes": ",".join(names)},
                timeout=ANSWER_S,
            )
        assert answer.status_code == 200, answer.text
        return answer.json()


class Container:
    """The root file system and the configuration of an image.

    Args:
        root: where it is mounted.
        config: as Docker keeps it: User, Env, Entrypoint, Cmd, Healthcheck.
    """

    def __init__(self, root: Path, config: dict[str, Any]):
        self.root = root
        self.user = config["User"]
        self.variables = dict(entry.split("=", 1) for entry in config["Env"])
        self.command = [*config["Entrypoint"], *config["Cmd"]]
        self.healthcheck: list[str] = config["Healthcheck"]["Test"][1:]

    def size(self) -> int:
        """Bytes of all files, each once."""
        used = subprocess.run(
            ["du", "-sxb", str(self.root)], capture_output=True, text=True, check=True, timeout=600
        )
        return int(used.stdout.split()[0])

    def require_pinned(self, layer: str) -> None:
        """All packages have the versions that the locks name for a layer."""
        pinned = pins(layer)
        (packages,) = self.root.glob("opt/ebseg/lib/python3*/site-packages")
        found = dict(re.findall(r"(?m)^(\S+)-([^-\s]+)\.dist-info$", "\n".join(os.listdir(packages))))
        own = {re.sub(r"[-_.]+", "-", name).lower(): version.split("+")[0] for name, version in found.items()}
        wrong = {
            name: version
            for name, version in own.items()
            if name not in _UNLOCKED and pinned.get(name) != version
        }
        assert wrong == {}, f"not as in requirements/: {json.dumps(wrong)}"

    def call(self, command: list[str], port: int) -> int:
        """Runs one more command in it; its exit code."""
        inside = self._entered(command, {"EBSEG_PORT": str(port)})
        return subprocess.run(inside, timeout=ANSWER_S, check=False).returncode

    @contextlib.contextmanager
    def running(self, variables: dict[str, str]) -> Iterator[Running]:
        """Runs the image's own command; SIGTERM at the end."""
        port = free_port()
        command = self._entered(self.command, {**variables, "EBSEG_PORT": str(port)})
        with ServerProcess(
            command, name="the container", port=port, folder=None, start=START_S, stop=STOP_S
        ) as server:
            service = Running(self, server)
            try:
                yield service
                service.exit_code = server.stop()
            finally:
                print(server.log_text(), file=sys.stderr)

    def _entered(self, command: list[str], variables: dict[str, str]) -> list[str]:
        own = [f"{name}={value}" for name, value in (self.variables | variables).items()]
        inside = ["env", "-i", *own, *command]
        return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self.root), self.user, *inside]
