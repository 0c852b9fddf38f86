"""Builds the Dockerfile without a container engine, and has the image answer a request.

    sudo .venv/bin/python -m tests.deploy.build_image --target cuda

Debian's buildah builds on a base that debootstrap makes, with chroot isolation, so neither a daemon nor a
registry is needed. The image is then run as Docker would: its user, variables and entry point, a read-only
root file system and a fresh /tmp. Needs root, the packages buildah and debootstrap, 30 GB of disk, and ten
minutes. The last line that it prints is JSON: sizes and seconds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.deploy.container import Container
from tests.deploy.files import ROOT, tool

BASE = "localhost/debian:bookworm-slim"
SUITE = "bookworm"
LONGEST_S = 3600
NAMES = ["house", "umbrella", "butterfly"]


class Buildah:
    """buildah with a storage of its own, that goes away with the folder.

    Args:
        folder: for images and containers.
    """

    def __init__(self, folder: Path):
        roots = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._command = [tool("buildah"), *roots, "--storage-driver", "overlay"]

    def __call__(self, *arguments: str, quiet: bool = True) -> str:
        """Runs one command; its output, or an error with all of it."""
        done = subprocess.run(
            [*self._command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        if done.returncode or not quiet:
            print(done.stdout[-6000:], file=sys.stderr)
        if done.returncode:
            raise SystemExit(f"buildah {arguments[0]} failed with {done.returncode}")
        return done.stdout.strip()


def make_base(buildah: Buildah, folder: Path, mirror: str | None) -> None:
    """A Debian as small as debian:bookworm-slim, from its packages."""
    root = folder / "base"
    notify(f"debootstrap {SUITE}")
    command = [tool("debootstrap"), "--variant=minbase", SUITE, str(root), *([mirror] if mirror else [])]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=LONGEST_S, check=True)
    shutil.rmtree(root / "var" / "cache" / "apt" / "archives")
    (root / "etc" / "apt" / "apt.conf.d" / "90quiet").write_text('quiet "2";\n', encoding="utf-8")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(root), "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(root)


def pip_volumes(folder: Path) -> list[str]:
    """This machine's pip configuration as volumes of the build: none of it gets into the image.

    Files that it names are copied beside it, folders are mounted where they are.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    place = folder / "pip"
    place.mkdir()
    volumes = {f"{place}:/etc/pip:ro"}
    values: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name, value = key.rpartition(".")[2], value.strip("'")
        for word in value.split():
            path = Path(re.sub(r"^file://", "", word))
            if path.is_file():
                shutil.copy(path, place / path.name)
                value = value.replace(word, f"/etc/pip/{path.name}")
            elif path.is_absolute() and path.is_dir():
                volumes.add(f"{path}:{path}:ro")
                volumes |= {f"{real}:{real}:ro" for real in (path.parent,) if word.startswith("file://")}
        values.setdefault(name, value)
    text = "[global]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
    (folder / "pip.conf").write_text(text, encoding="utf-8")
    volumes.add(f"{folder / 'pip.conf'}:/etc/pip.conf:ro")
    return sorted(volumes)


def context(folder: Path) -> Path:
    """What git knows of the checkout, and what it would take in: the builder sees nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    target = folder / "context"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def build(
    buildah: Buildah, sources: Path, arguments: dict[str, str], volumes: list[str]
) -> tuple[str, float]:
    """Builds the image; what buildah printed, and seconds."""
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options += [f"--volume={volume}" for volume in volumes]
    began = time.monotonic()
    printed = buildah(
        "build",
        "--isolation=chroot",
        "--layers",
        "--format=docker",
        "--pull=never",
        *options,
        "--tag=ebseg:check",
        str(sources),
    )
    return printed, time.monotonic() - began


def check(container: Container) -> dict[str, Any]:
    """Starts the service as the image says, and asks it for a segmentation."""
    with container.running({"EBSEG_LOG_FORMAT": "json"}) as service:
        ready = service.wait_until_ready()
        service.require(uid=10001)
        service.require_read_only()
        service.require_healthy(container.healthcheck)
        answer = service.segment(ROOT / "samples" / "village.jpg", NAMES)
        assert [entry["name"] for entry in answer["classes"]] == NAMES, answer
        assert answer["model"]["untrained"] is False, answer["model"]
    assert service.exit_code == 0, f"after SIGTERM the container left with {service.exit_code}"
    return {"ready_s": round(ready, 1), "answered_ms": answer["timings_ms"]["total"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--torch-cpu", help='index with PyTorch for the CPU; "" takes pip\'s own')
    parser.add_argument("--mirror", help="of Debian's packages; else debootstrap's own")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is left as it is")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("this needs root: it makes a Debian, and mounts")
    with tempfile.TemporaryDirectory(prefix="ebseg-image-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        buildah = Buildah(folder)
        try:
            print(json.dumps(prove(buildah, folder, options)))
        finally:
            if options.keep is None:
                buildah("rm", "--all")
                buildah("rmi", "--all", "--force")


def prove(buildah: Buildah, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Base, image, a request, and the image once more after changes that must leave PyTorch's layer alone."""
    make_base(buildah, folder, options.mirror)
    arguments = {"BASE": BASE, "TARGET": options.target}
    if options.torch_cpu is not None:
        arguments["TORCH_CPU"] = options.torch_cpu
    sources, volumes = context(folder), pip_volumes(folder)
    notify("building the image")
    _, seconds = build(buildah, sources, arguments, volumes)
    image = json.loads(buildah("inspect", "--type", "image", "ebseg:check"))
    name = buildah("from", "--pull=never", "ebseg:check")
    container = Container(Path(buildah("mount", name)), image["Docker"]["config"])
    container.require_pinned("serving")
    notify("starting it")
    served = check(container)
    size = container.size()
    buildah("umount", name)
    for changed in ("service/observability/metrics.py", "requirements/serving.txt"):
        with (sources / changed).open("a", encoding="utf-8") as file:
            file.write("# changed\n")
    notify("building it again after a change of a source and of a pin")
    again, seconds_again = build(buildah, sources, arguments, volumes)
    steps = re.split(r"(?m)^.*\bSTEP \d+/\d+: ", again)
    (torch,) = [step for step in steps if step.startswith("RUN ") and " torch.txt" in step]
    assert "Using cache" in torch, again
    (package,) = [step for step in steps if step.startswith("RUN pip") and "--root /package" in step]
    assert "Using cache" not in package, again
    return {
        "target": options.target,
        "bytes": size,
        "build_s": round(seconds),
        "rebuild_s": round(seconds_again),
        "user": image["Docker"]["config"]["User"],
        **served,
    }


def notify(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
