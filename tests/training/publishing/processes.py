"""Publishers in processes of their own, killed where it hurts or racing each other.

Run as a program: `python -m tests.training.publishing.processes WHAT RUN DESTINATION OPTIONS`. The process
itself never touches the registry; it forks one child for each step, so that torch is imported once.
"""

import builtins
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import s3fs  # noqa: F401 (once, before the children are forked)
import torch
from huggingface_hub import HfApi

import training.publishing.publish
from model.storage import golden
from model.storage.checkpoint import LoadedCheckpoint, load
from model.storage.verify import verify
from model.storage.versions import Versions, version_number
from tests.training.publishing.publish_runs import small_ebseg
from training.publishing.finished_run import read_run
from training.publishing.publish import publish

PUBLISHERS, EACH = 4, 2


def publish_dying(run: Path, destination: str, options: dict[str, Any], at: int) -> None:
    """Publishes, and kills this process before the `at`-th call that changes anything."""
    count = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    versions = Versions(destination, **options)
    if destination.startswith("hf://"):
        send = httpx2.Client.send
        changing = deadly(send)

        def sent(client: httpx2.Client, request: httpx2.Request, **options: Any) -> Any:
            return (send if request.method == "GET" else changing)(client, request, **options)

        setattr(httpx2.Client, "send", sent)  # noqa: B010  # whoever it is that sends
    elif versions.folder is None:
        for name in ("pipe_file", "put_file", "rm"):  # fsspec gives the same instance again
            setattr(versions.fs, name, deadly(getattr(versions.fs, name)))
    else:
        for name in ("fsync", "rename", "unlink", "mkdir"):
            setattr(os, name, deadly(getattr(os, name)))
        builtins.open = deadly(open)
    publish(run, destination, storage_options=options)


def check(destination: str, options: dict[str, Any], least: int) -> None:
    """What a reader would take is whole, and there is a version `least` or a later one."""
    versions = Versions(destination, **options)
    numbers = versions.numbers()
    newest = versions.newest()
    assert newest is not None
    assert newest.version == numbers[-1] >= least
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            versions.fetch(number, Path(folder) / str(number))


def crash_everywhere(run: Path, destination: str, options: dict[str, Any]) -> None:
    """Version 1, then for each call: a publisher that dies at it, and one that does not."""
    assert forked(lambda: publish(run, destination, storage_options=options)) == 0
    at, highest, died = 0, 1, True
    while died:
        at += 1
        code = forked(lambda at=at: publish_dying(run, destination, options, at))  # type: ignore[misc]
        assert code in (0, -signal.SIGKILL), code
        died = code != 0
        assert forked(lambda least=highest: go_on(run, destination, options, least)) == 0  # type: ignore[misc]
        highest += 1
    print(at - 1)


def go_on(run: Path, destination: str, options: dict[str, Any], least: int) -> None:
    """What a reader and the next publisher meet after a crash."""
    check(destination, options, least)
    publish(run, destination, storage_options=options)
    check(destination, options, least + 1)
    tidy(destination, options)


def tidy(destination: str, options: dict[str, Any]) -> None:
    """Asserts that nothing half-written is left, and removes all but the newest version: disks are small.

    Before its lock is made, or after, a work folder looks like one that is just being made; its age is put
    forward for the next publisher to see.
    """
    versions = Versions(destination, **options)
    *old, _ = versions.numbers()
    if versions.folder is not None:
        for path in versions.folder.iterdir():
            if path.name != ".claims" and version_number(path.name) is None:
                assert path.name.startswith(".ebseg-publishing-"), path
                assert {inside.name for inside in path.iterdir()} <= {"unlocked"}, path
                for one in (*path.iterdir(), path):
                    os.utime(one, (0, 0))
    for number in old:
        if destination.startswith("hf://"):
            owner, repository, *inner = versions.path(number).split("/")
            api = HfApi(token=options["token"])
            api.delete_folder("/".join(inner), f"{owner}/{repository}", commit_message="an old version goes")
        else:
            versions.fs.rm(versions.path(number), recursive=True)


def race(run: Path, destination: str, options: dict[str, Any]) -> None:
    """Several publishers at once, each more than once."""
    start = time.time() + 0.5

    def publisher() -> None:
        time.sleep(max(0, start - time.time()))
        for _ in range(EACH):
            published = publish(run, destination, storage_options=options)
            os.write(1, f"{published.manifest.version}\n".encode())

    children = [fork(publisher) for _ in range(PUBLISHERS)]
    codes = [wait(child) for child in children]
    assert codes == [0] * PUBLISHERS, codes


def forked(function: Callable[[], object]) -> int:
    """Runs in a child; its exit code, or minus the signal that ended it."""
    return wait(fork(function))


def fork(function: Callable[[], object]) -> int:
    """Starts a child that runs a function and ends."""
    if child := os.fork():
        return child
    code = 1
    try:
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def quick_load(run: Path) -> Callable[..., LoadedCheckpoint]:
    """`load` that compares all digests, and makes the run's model for whatever is loaded once only."""
    loaded = load(read_run(run).checkpoint)

    def quick(folder: Path, **_: Any) -> LoadedCheckpoint:
        return dataclasses.replace(loaded, manifest=verify(folder))

    return quick


def main() -> None:
    """See the top of the file."""
    what, run, destination, options = sys.argv[1:]
    torch.set_num_threads(1)
    # the golden picture is not what is tested here, and would take most of the time
    setattr(golden, "make", lambda _: {"image": golden.image(8, 8)})  # noqa: B010
    setattr(training.publishing.publish, "check_golden", lambda _: 0.0)  # noqa: B010
    small_ebseg()
    setattr(training.publishing.publish, "load", quick_load(Path(run)))  # noqa: B010
    {"crash": crash_everywhere, "race": race}[what](Path(run), destination, json.loads(options))


if __name__ == "__main__":
    main()
