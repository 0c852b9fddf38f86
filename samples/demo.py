"""What `make demo` runs: start the service, segment sample scenes over HTTP, stop the service."""

import argparse
import base64
import io
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from photographs import NoPhotographsError, photographs
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.commands.choosing import pulled_folder
from model.errors import ModelError, UnreachableError
from model.storage.packaged import packaged_checkpoint
from service.bench.process import ServerFailedError, ServerProcess
from service.schemas.lists import listed
from service.segmentation.sheet import SheetEntry, contact_sheet

# What is asked for in each scene: classes that it shows, then some that it does not show.
SCENES = {
    "village": (("house", "umbrella", "butterfly", "clouds", "hay", "sand"), ("car", "snow", "brick wall")),
    "harbour": (("boat", "fish", "water", "starry sky", "forest", "gravel"), ("sand", "tent", "butterfly")),
    "street": (
        ("car", "roof tiles", "brick wall", "cobblestones", "starry sky"),
        ("stone wall", "umbrella", "net"),
    ),
    "room": (("clock", "lamp", "marble", "dotted cloth", "carpet"), ("cactus", "wallpaper", "striped cloth")),
}
READY_SECONDS = 300.0  # on a slow machine that does other things as well
STOP_SECONDS = 40.0  # the service itself gives running requests 30
ANSWER_SECONDS = 60.0


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class DemoScene:
    """A picture to send, and the classes to ask for."""

    picture: Path
    classes: tuple[str, ...]


def main(argv: list[str] | None = None) -> int:
    """Runs the demo, and returns its exit code."""
    args = parse(argv)
    console = Console(highlight=False, soft_wrap=True)
    # so that a closed terminal or a `kill` stops the service as well; under nohup, what it ignores stays so
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        checkpoint = chosen_checkpoint(args, console)
        with running_service(checkpoint, args.out / "service.log", console) as url:
            entries = []
            for scene in scenes(args, checkpoint, console):
                answer = segment(url, scene)
                show(scene, answer, console)
                entries.append(write(scene, answer, args.out))
            contact_sheet(entries).save(args.out / "demo.png")
        console.print(f"masks and overlays are in {escape(str(args.out))}, all of it in demo.png")
        console.print("the service has stopped")
    except KeyboardInterrupt:
        console.print("interrupted; the service has stopped")
        return 130
    except (DemoError, ModelError, httpx.HTTPError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The demo's command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="checkpoint to serve (default: the one ebseg comes with)",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="model to serve by name, such as base; fetched into registry if it is missing, and shown on "
        "photographs (without a network: EBSeg-tiny on its scenes, and a line that says so)",
    )
    parser.add_argument("--yes", action="store_true", help="fetch a missing model without asking")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="picture to send (default: the sample scenes)"
    )
    parser.add_argument("--classes", metavar="NAMES", help='its class names, such as "sky, tree, road"')
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("out"), help="folder for the results (default: out)"
    )
    args = parser.parse_args(argv)
    if (args.picture is None) != (args.classes is None):
        parser.error("--picture and --classes go together: the sample scenes have classes of their own")
    if args.model is not None and args.checkpoint is not None:
        parser.error("--model and --checkpoint do not go together: give one of them")
    if args.yes and args.model is None:
        parser.error("--yes needs a --model that may be missing")
    return args


def chosen_checkpoint(args: argparse.Namespace, console: Console) -> Path:
    """The checkpoint that the command line asks for, or EBSeg-tiny if that needs a network and there is none.

    Raises:
        ModelError: there is no such model, or it could not be fetched though there is a network.
    """
    if args.model is None:
        return args.checkpoint or packaged_checkpoint()
    try:
        return pulled_folder(args.model, yes=args.yes)
    except UnreachableError as error:
        reason = str(error).partition(". Other ways")[0]
        console.print(f"{escape(args.model)} cannot be fetched now, so this is EBSeg-tiny: {escape(reason)}")
        return packaged_checkpoint()


def scenes(args: argparse.Namespace, checkpoint: Path, console: Console) -> list[DemoScene]:
    """What the command line asks for: photographs for a model by name, but for EBSeg-tiny."""
    if args.picture is not None:
        return [DemoScene(args.picture, tuple(listed([args.classes])))]
    if args.model is not None and checkpoint != packaged_checkpoint():
        try:
            found = photographs(args.out / "photographs")
        except (NoPhotographsError, OSError) as error:
            console.print(f"no photographs, so these are drawn scenes: {escape(str(error))}")
        else:
            return [DemoScene(path, classes) for path, classes in found.items()]
    folder = Path(__file__).parent
    return [DemoScene(folder / f"{name}.jpg", shown + absent) for name, (shown, absent) in SCENES.items()]


@contextmanager
def running_service(checkpoint: Path, log: Path, console: Console) -> Iterator[str]:
    """A ready service on a free port, by its URL; stopped in the end, whatever happens.

    Raises:
        DemoError: it did not start, or did not stop cleanly.
    """
    # every setting that this file relies on is given, so that EBSEG_* variables do not change it
    settings = {
        "checkpoint": checkpoint,
        "host": "127.0.0.1",
        "port": 0,
        "log-level": "info",
        "log-format": "json",
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    console.print(f"starting ebseg serve --checkpoint {escape(str(checkpoint))}")
    command = [sys.executable, "-m", "ebseg", "serve", *flags]
    with ServerProcess(command, log=log, folder=None, start=READY_SECONDS, stop=STOP_SECONDS) as server:
        wait_until_ready(server, log, console)
        yield server.url
    code = server.stop()
    if code != 0:
        raise DemoError(f"the service ended with exit code {code}, expected 0{tail(log)}")


def wait_until_ready(server: ServerProcess, log: Path, console: Console) -> None:
    """Returns once `/readyz` says yes.

    Raises:
        DemoError: the service ended, or took longer than `READY_SECONDS`.
    """
    began = time.monotonic()
    try:
        with console.status("loading the model"):
            server.wait()
    except ServerFailedError as error:
        if error.exit_code is None:
            raise DemoError(f"the service was not ready after {READY_SECONDS:.0f} s{tail(log)}") from None
        raise DemoError(f"the service ended with exit code {error.exit_code}{tail(log)}") from None
    console.print(f"ready at {server.url} after {time.monotonic() - began:.1f} s")


def tail(log: Path) -> str:
    """The last lines of the service's log, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return "".join(f"\n  {line}" for line in [f"last lines of {log}:", *lines])


def segment(url: str, scene: DemoScene) -> dict[str, Any]:
    """The answer to one request.

    Raises:
        DemoError: the service refused; the message holds what it said.
    """
    request = {"classes": scene.classes, "outputs": ["png", "overlay"]}
    try:
        response = httpx.post(
            f"{url}/v1/segment",
            files={"image": (scene.picture.name, scene.picture.read_bytes())},
            data={"request": json.dumps(request)},
            timeout=ANSWER_SECONDS,
        )
    except httpx.HTTPError as error:
        raise DemoError(f"the request failed: {error!r}") from None
    if response.status_code != 200:
        raise DemoError(f"the service answered {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def show(scene: DemoScene, answer: dict[str, Any], console: Console) -> None:
    """Prints the answer as a table."""
    model, size, timings = answer["model"], answer["size"], answer["timings_ms"]
    title = f"{scene.picture.name}, {size['width']} x {size['height']}, {model['name']}/{model['version']}"
    table = Table(title=escape(title))
    table.add_column("class")
    table.add_column("colour")
    table.add_column("share", justify="right")
    table.add_column("confidence", justify="right")
    table.add_column("counts as")
    for entry in answer["classes"]:
        confidence = entry["mean_confidence"]
        table.add_row(
            escape(entry["name"]),
            f"[{entry['color']}]\u2588\u2588[/] {entry['color']}",
            f"{entry['fraction']:.1%}",
            "-" if confidence is None else f"{confidence:.2f}",
            "trained" if entry["trained"] else "new",
        )
    if "other" in answer:
        below = f"< {answer['background']['threshold']:.2f}"
        table.add_row("[i]other[/]", "", f"{answer['other']['fraction']:.1%}", below, "")
    console.print(table)
    for warning in answer.get("warnings", ()):
        console.print(f"[bold]{escape(warning['message'])}[/]")
    console.print("time in ms: " + ", ".join(f"{stage} {value:.1f}" for stage, value in timings.items()))
    if model["untrained"]:
        console.print(
            "[bold]These weights are untrained: the mask means nothing yet.[/] "
            "It shows that everything works, from the picture to the answer."
        )


def write(scene: DemoScene, answer: dict[str, Any], folder: Path) -> SheetEntry:
    """Writes mask and overlay; what the contact sheet shows of them."""
    name, overlay = scene.picture.stem, base64.b64decode(answer["overlay"])
    (folder / f"{name}-mask.png").write_bytes(base64.b64decode(answer["png"]))
    (folder / f"{name}-overlay.webp").write_bytes(overlay)
    classes = [
        (entry["name"] + ("" if entry["trained"] else " (new)"), entry["color"], entry["fraction"])
        for entry in answer["classes"]
    ]
    with Image.open(scene.picture) as picture, Image.open(io.BytesIO(overlay)) as painted:
        return SheetEntry.of(name, picture, painted, classes)


if __name__ == "__main__":
    sys.exit(main())
