"""`ebseg segment`."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from model.command import add_command, count, seconds, share
from model.commands.choosing import MODEL_HELP, add_yes, expected_folder, pulled_folder
from service.commands.complaint import FAILED, UNUSABLE, complain
from service.commands.flags import (
    CLASSES_HELP,
    FILE_HELP,
    KEY_HELP,
    add_config,
    add_setting,
    class_list,
    class_specs,
    given_classes,
    given_settings,
)
from service.commands.remote import complain_of, connected
from service.commands.segment.plan import ENDINGS, REGIONAL
from service.options import MOST_REGIONS

if TYPE_CHECKING:
    from service.commands.segment.plan import SegmentPlan

TIMEOUT = 60.0  # seconds, of each picture
EXAMPLES = """
  ebseg segment samples/village.jpg --classes "house, umbrella, clouds" --overlay overlay.png
  ebseg segment photo.jpg --classes "sky, tree, road" --model base
  ebseg segment photo.jpg --vocabulary ade20k-150 --checkpoint registry/ebseg-base/1 --out mask.png
  ebseg segment samples/room.jpg --classes "clock, lamp" --background 0.3 --json
  ebseg segment samples --classes "house, boat, car, lamp" --out masks --overlay overlays --sheet sheet.png
  ebseg segment samples --vocabulary auto --coco instances.json --min-area 64
  ebseg segment samples/village.jpg --classes "house, hay" --save cutout=house.png --subject house
  ebseg segment photos --classes "sky, tree" --out masks --url http://127.0.0.1:8000 --parallel 8

A folder stands for the images in it. With a folder or several images, --out and --overlay are folders,
whose files are called like the images, and --json prints one object a line.

Exit code: 0; 1 if some of several images failed, or the service did; 2 if the only image, a flag or the
classes cannot be used.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands, "segment", run, "segment images, without a server or with a running one", EXAMPLES
    )
    parser.add_argument(
        "pictures",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF, or a folder of them",
    )
    wanted = parser.add_argument_group("what to look for")
    what = wanted.add_mutually_exclusive_group(required=True)
    what.add_argument("--classes", action="append", metavar="NAMES", help=CLASSES_HELP)
    what.add_argument("--classes-file", type=Path, metavar="FILE", help=FILE_HELP)
    what.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="a built-in class list, such as ade20k-150; auto: what is seen of the largest one; with "
        "--url also a list that the service stores",
    )
    wanted.add_argument(
        "--background",
        type=_background,
        metavar="T",
        help='pixels of a lower confidence become "other", 0 to 1; or none: every pixel gets a class '
        "(default: the threshold of the model's card)",
    )
    wanted.add_argument(
        "--templates",
        action="append",
        metavar="TEXT",
        help='vild (default), imagenet, plain, or a sentence with "{}"; sentences may be repeated',
    )
    out = parser.add_argument_group("what is written")
    out.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="write the indexed label map: .png, or .tif, which keeps a GeoTIFF's georeference; a folder "
        "for several",
    )
    out.add_argument("--mask-format", choices=("png", "tif"), help="of label maps in a folder (default: png)")
    out.add_argument(
        "--overlay",
        type=Path,
        metavar="PATH",
        help="write the image under its mask: .png, .jpg or .webp; a folder for several, which get WebP",
    )
    out.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write a contact sheet, images beside their overlays: .png, .jpg or .webp",
    )
    out.add_argument(
        "--save",
        action="append",
        default=[],
        type=_saved,
        metavar="OUTPUT=PATH",
        help="write a further output: confidence, soft_mask, cutout or panoptic (.png, beside COCO's .json), "
        "geojson, regions (.json), npy or scores (.npy); a folder for several; may be repeated",
    )
    out.add_argument(
        "--coco",
        type=Path,
        metavar="FILE",
        help="write the regions of all images as COCO's instances: .json",
    )
    out.add_argument(
        "--min-area", type=count, metavar="N", help="of regions that are written, pixels (default: 1)"
    )
    out.add_argument(
        "--world",
        action="store_true",
        help="geojson in degrees, by the georeference of GeoTIFFs; needs ebseg[geo]",
    )
    out.add_argument("--subject", metavar="NAME", help="the class that soft_mask and cutout show")
    out.add_argument(
        "--palette", metavar="COLOURS", help='distinct (default), voc, or colours such as "#ff0000, #00ff00"'
    )
    out.add_argument(
        "--json", action="store_true", help="print one JSON object an image instead of the table"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--model",
        metavar="MODEL",
        help=f"{MODEL_HELP}; what is missing is pulled into registry (default: tiny, or what settings say). "
        "With --url: one of the service's models (default: its own choice)",
    )
    how.add_argument(
        "--frame",
        type=_frame,
        metavar="N",
        help="which frame or page of the files, from 0 (default: the first)",
    )
    how.add_argument(
        "--tiling",
        type=_tiling,
        metavar="SIZE[,OVERLAP]",
        help="segment large images in tiles of so many pixels, at their own resolution",
    )
    how.add_argument("--parallel", type=count, default=4, metavar="N", help="images at a time (default: 4)")
    here = parser.add_argument_group("without a server")
    for name in ("checkpoint", "device", "dtype", "max_pixels", "max_classes"):
        add_setting(here, name)
    add_config(here)
    add_yes(here)
    there = parser.add_argument_group("with a running one")
    there.add_argument("--url", metavar="URL", help="the service, such as http://127.0.0.1:8000")
    there.add_argument("--api-key", metavar="KEY", help=KEY_HELP)
    there.add_argument(
        "--version",
        type=count,
        metavar="N",
        help="one of the model's versions that serve (default: the service's choice)",
    )
    there.add_argument(
        "--timeout", type=seconds, metavar="S", help=f"for each image, seconds (default: {TIMEOUT:g})"
    )


def run(args: argparse.Namespace) -> int:
    """`ebseg segment`."""
    from service.commands.segment.plan import plan
    from service.errors import UsageError

    try:
        _refuse_mixture(args)
        # whatever can be wrong is looked at before the model is loaded, which takes seconds
        job = plan(
            args.pictures,
            out=args.out,
            overlay=args.overlay,
            sheet=args.sheet,
            as_json=args.json,
            parallel=args.parallel,
            saved=_by_name(args.save),
            coco=args.coco,
            mask_format=args.mask_format,
            world=args.world,
        )
        return _run_here(args, job) if args.url is None else _run_there(args, job)
    except UsageError as error:
        return complain(error, UNUSABLE)


def _exit_code(job: "SegmentPlan", failed: int) -> int:
    """The exit code, once it was said how many pictures failed."""
    return complain(f"{failed} of {len(job.files)} images failed", FAILED) if failed else 0


def _run_here(args: argparse.Namespace, job: "SegmentPlan") -> int:
    """Segments with a model in this process."""
    from service.errors import ServiceError
    from service.observability.logging import configure
    from service.segmentation.requested import checked_for_here, read_request, requested_vocabulary
    from service.settings import SettingsError, load_settings

    configure("error", "text")
    try:
        spec = read_request(_request(args))
        given = given_settings(args)
        if args.model is not None:
            given["checkpoint"] = expected_folder(args.model)
        settings = load_settings(given, args.config)
        if args.model is not None:
            requested_vocabulary(spec, settings.max_classes)  # before anything is fetched
            pulled_folder(args.model, yes=args.yes)
        vocabulary, folder = checked_for_here(settings, spec)

        from model.pictures.decode import settle_warnings
        from service.commands.segment.files import run as run_job
        from service.commands.segment.local import LocalSource

        settle_warnings()
        status = nullcontext if job.many else _status
        return _exit_code(job, run_job(job, LocalSource(settings, spec, vocabulary, folder, status)))
    except (ServiceError, SettingsError) as error:
        return complain(error, UNUSABLE)


def _run_there(args: argparse.Namespace, job: "SegmentPlan") -> int:
    """Segments with a running service, which looks at the request."""
    from ebseg_client import ClientError, RegionOptions, SegmentOptions, Tiling
    from model.pictures.decode import settle_warnings
    from service.commands.segment.files import run as run_job
    from service.commands.segment.remote import RemoteSource

    request = _request(args)
    place = "--classes" if args.classes_file is None else str(args.classes_file)
    classes = class_specs(request["classes"], place) if "classes" in request else None
    options = SegmentOptions(
        vocabulary=args.vocabulary,
        templates=request.get("templates"),
        background=args.background,
        model=args.model,
        version=args.version,
        frame=args.frame,
        outputs=request.get("outputs"),
        regions=RegionOptions(**request["regions"]) if "regions" in request else None,
        subject=args.subject,
        palette=request.get("palette"),
        tiling=Tiling(**request["tiling"]) if "tiling" in request else None,
    )
    timeout = TIMEOUT if args.timeout is None else args.timeout
    settle_warnings()
    try:
        with connected(args.url, args.api_key, timeout, connections=args.parallel) as client:
            return _exit_code(job, run_job(job, RemoteSource(client, classes, options)))
    except ClientError as error:
        return complain_of(error, args.url)


def _refuse_mixture(args: argparse.Namespace) -> None:
    """No flag is accepted and ignored."""
    from service.errors import UsageError

    here = {f"--{name.replace('_', '-')}": value for name, value in given_settings(args).items()}
    if args.url is None and args.model is not None and "--checkpoint" in here:
        raise UsageError("--model and --checkpoint do not go together: give one of them")
    regional = args.coco is not None or not REGIONAL.isdisjoint(dict(args.save))
    if args.min_area is not None and not regional:
        raise UsageError(f"--min-area needs --coco, or --save of {', '.join(sorted(REGIONAL))}")
    if args.world and "geojson" not in dict(args.save):
        raise UsageError("--world needs --save geojson=..., whose coordinates it is of")
    several = len(args.pictures) > 1 or args.pictures[0].is_dir()
    if args.mask_format is not None and (args.out is None or not several):
        raise UsageError("--mask-format needs --out with a folder; a single file's ending says it")
    if args.subject is not None and not {"soft_mask", "cutout"} & set(dict(args.save)):
        raise UsageError("--subject needs --save soft_mask=... or --save cutout=..., which show it")
    if args.url is None and args.model is None and args.yes:
        raise UsageError("--yes needs a --model that may be missing, as in --model base --yes")
    here |= {"--config": args.config, "--yes": args.yes or None}
    there = {f"--{name.replace('_', '-')}": getattr(args, name) for name in ("api_key", "version", "timeout")}
    for flag, value in (there if args.url is None else here).items():
        if value is not None:
            how = "needs --url" if args.url is None else "does not go with --url: the service has its own"
            raise UsageError(f"{flag} {how}")


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """The request document that the flags stand for."""
    request: dict[str, Any] = {"vocabulary": args.vocabulary}
    if args.vocabulary is None:
        request["classes"], _ = given_classes(args)
    if args.templates is not None:
        request["templates"] = args.templates[0] if len(args.templates) == 1 else args.templates
    if args.background is not None:
        request["background"] = None if args.background == "none" else {"threshold": args.background}
    if args.frame is not None:
        request["frame"] = args.frame
    if args.tiling is not None:
        request["tiling"] = args.tiling
    further = [*_by_name(args.save), *(["coco"] if args.coco is not None else [])]
    if further:
        request["outputs"] = ["rle", *further]
    if not REGIONAL.isdisjoint(further) or args.coco is not None:
        request["regions"] = {"min_area": args.min_area or 1, "max_count": MOST_REGIONS}
    if args.subject is not None:
        request["subject"] = args.subject
    if args.palette is not None:
        colors = class_list([args.palette], "--palette")
        request["palette"] = colors[0] if colors in (["distinct"], ["voc"]) else colors
    return request


def _saved(text: str) -> tuple[str, Path]:
    """What `--save` takes."""
    name, equals, path = text.partition("=")
    if name not in ENDINGS or not equals or not path:
        known = ", ".join(ENDINGS)
        raise argparse.ArgumentTypeError(f"must be OUTPUT=PATH, OUTPUT one of {known}, got {text!r}")
    return name, Path(path)


def _by_name(saved: list[tuple[str, Path]]) -> dict[str, Path]:
    """Where each output of `--save` goes.

    Raises:
        UsageError: one comes twice.
    """
    from service.errors import UsageError

    if len(dict(saved)) < len(saved):
        raise UsageError("--save: each output may be given once")
    return dict(saved)


def _frame(text: str) -> int:
    """What `--frame` takes; how many there may be is the request's to say."""
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def _tiling(text: str) -> dict[str, Any]:
    """What `--tiling` takes."""
    from model.tiling import tiling_document

    try:
        return tiling_document(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _background(text: str) -> "float | Literal['none']":
    """What `--background` takes."""
    return "none" if text == "none" else share(text)


def _status(text: str) -> Any:
    """A spinner on standard error while it is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(text) if console.is_terminal else nullcontext()
