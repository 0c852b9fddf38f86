"""The `ebseg` command, the packages' own commands under one name; and `ebseg.load` for notebooks.

Exit codes: 0 done; 1 failed, or done for some pictures only, or refused by a gate; 2 wrong usage or unusable
input; 130 interrupted; 141 nobody reads the output any more. What goes wrong is one line on standard
error.
"""

import argparse
import difflib
import importlib.util
import itertools
import os
import sys
import traceback
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from service.local.notebook import NotebookModel

__all__ = ["build_parser", "load", "main"]

EPILOG = """\
Examples:
  ebseg segment photo.jpg --classes "sky, tree, road" --overlay overlay.png
  ebseg serve
  ebseg pull base

`ebseg COMMAND --help` lists the options of a command, with examples.

Exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 130 interrupted, 141 nobody reads on."""
DONE, FAILED, UNUSABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

PACKAGES = ("model", "service", "training")

# What `import` calls the packages that each extra brings; "service" and "training" bring those of "model" as
# well, and the last ones come with ebseg itself.
EXTRAS = {
    "model": frozenset(
        {
            "cachetools",
            "fsspec",
            "httpx2",
            "huggingface_hub",
            "open_clip",
            "safetensors",
            "segment_anything",
            "timm",
            "torch",
            "torchvision",
        }
    ),
    "batch": frozenset({"pyarrow"}),
    "ray": frozenset({"pandas", "ray"}),
    "service": frozenset(
        {
            "cv2",
            "fastapi",
            "fastapi_offline",
            "httptools",
            "prometheus_client",
            "pydantic",
            "pydantic_settings",
            "python_multipart",
            "redis",
            "starlette",
            "uvicorn",
            "uvloop",
        }
    ),
    "training": frozenset({"cv2", "pycocotools", "scipy", "tensorboard"}),
    "export": frozenset({"onnxruntime", "onnxscript", "openvino"}),
    "wandb": frozenset({"wandb"}),
    "mlflow": frozenset({"mlflow"}),
    "s3": frozenset({"s3fs"}),
    "otlp": frozenset({"opentelemetry"}),
    "geo": frozenset({"rasterio"}),
    "": frozenset({"PIL", "argcomplete", "ebseg_client", "httpx", "numpy", "pillow_heif", "rich"}),
}


def _hidden_package() -> str | None:
    """Says what Python would import in the place of one of our packages; None if nothing.

    A file or a folder of such a common name in the user's folder comes first on Python's path. It is not
    imported to find that out: who knows what it does.
    """
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module that was made by hand stands in the place
            return f"a module that is loaded already hides ebseg's own package `{name}`: give it another name"
        if spec is None:
            continue  # importing it will say so
        folders = list(spec.submodule_search_locations or ())
        found = Path(folders[0] if folders else spec.origin or name).absolute()
        if found.resolve() == Path(__file__).resolve().with_name(name):
            continue
        if found == Path(__file__).absolute().with_name(name):  # its files are links, each to another place
            continue
        way_out = (
            "run ebseg from another folder"
            if found.parent.resolve() == Path.cwd()
            else f"take {found.parent} off Python's path"
        )
        return f"{found} hides ebseg's own package `{name}`: rename it, or {way_out}"
    return None


HIDDEN = _hidden_package()
if HIDDEN is not None and not (__name__ == "__main__" or Path(sys.argv[0]).stem == "ebseg"):
    # the command tells it in one line instead, see `main`
    raise ImportError(HIDDEN)


def load(
    name: str | os.PathLike[str] = "ebseg-tiny", *, device: str = "auto", dtype: str = "float32"
) -> "NotebookModel":
    """Loads a model that segments pictures: `ebseg.load("ebseg-tiny").segment(picture, ["sky", "boat"])`.

    Args:
        name: "ebseg-tiny" (or "tiny"), which comes with ebseg; "ebseg-base" or "base", once `ebseg pull base`
            has put it below the folder `registry`, and so on; a checkpoint folder; or a folder of versions,
            of which the newest is taken.
        device: "auto" (the first CUDA device, or else the CPU), "cpu", "cuda" or "cuda:N".
        dtype: that the model computes in: "float32", "bfloat16" or "float16".

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged; the message says what to do.
        SettingsError: a device or dtype that is not here.
        ImportError: a package is missing; the message says how to install it.
    """
    try:
        from service.local import notebook

        return notebook.load(name, device=device, dtype=dtype)
    except ModuleNotFoundError as error:
        extra = _extra(error.name or "", "service")
        if extra is None:
            raise
        raise ImportError(_missing(error.name or "", extra), name=error.name) from None


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and that takes no flag for another one.

    argparse would read a flag that is cut short, `--max-pixel`, as one that begins so.
    """

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses what is unknown here already, where the help to look at is known."""
        flags = self._option_string_actions
        if self._subparsers is None:  # first, lest argparse miss a flag that is only misspelt
            for text in itertools.takewhile(lambda one: one != "--", args or ()):
                flag = text.partition("=")[0]
                if flag.startswith("--") and " " not in flag and flag not in flags:
                    self.error(f"unrecognized arguments: {text}{_meant(flag, flags)}")
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names the choice that was meant."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant(str(value), map(str, action.choices or ()))
            raise

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(UNUSABLE)


def _meant(given: str, known: Iterable[str]) -> str:
    """A question, where something that is known has nearly this name."""
    near = difflib.get_close_matches(given, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


SECTIONS = {  # of `ebseg --help`; commands that are in none stand in the last one
    "images in, masks out": ("segment", "batch", "serve"),
    "a service that runs": ("models", "vocabularies"),
    "weights": ("pull", "import", "inspect", "init", "export", "publish"),
    "data and training": (
        *("prepare", "check", "storybook", "pretrain", "encoders", "train", "train-tiny"),
        *("evaluate", "reproduce", "calibrate", "ablate"),
    ),
    "more": (),
}


class _Sections(argparse.RawDescriptionHelpFormatter):
    """Help whose commands stand in sections."""

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        entries = {entry.dest: entry for entry in action._choices_actions}
        known = [name for names in SECTIONS.values() for name in names]
        rest = [name for name in entries if name not in known]
        parts = []
        for title, names in SECTIONS.items():
            shown = [name for name in names or rest if name in entries]
            self._indent()
            parts += [
                f"  {title}:\n",
                *(super(_Sections, self)._format_action(entries[name]) for name in shown),
                "\n",
            ]
            self._dedent()
        return "".join(parts)


class _Version(argparse.Action):
    """Looks the version up only when asked for it, so a checkout that is not installed runs as well."""

    def __call__(self, *_: Any) -> NoReturn:
        print(f"ebseg {metadata.version('ebseg')}")
        raise SystemExit(DONE)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; loads neither torch nor the service's packages."""
    import model.commands
    import model.commands.bench
    import service.bench.cli
    import service.cli
    import service.commands.completion
    import service.commands.news
    import training.commands.bench

    parser: argparse.ArgumentParser = _Parser(
        prog="ebseg",
        description="Open-vocabulary semantic segmentation: an image and class names in, a mask out.",
        epilog=EPILOG,
        formatter_class=_Sections,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error as well")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    service.cli.add_commands(commands)
    model.commands.add_commands(commands)
    training.commands.add_commands(commands, service.commands.news.announcer)
    benchmarks = model.commands.bench.add_commands(commands)
    training.commands.bench.add_benchmark(benchmarks)
    service.bench.cli.add_benchmark(benchmarks)
    service.commands.completion.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command, and returns its exit code."""
    try:
        code = _run(argv)
        if sys.stdout is not None:  # there is none where the shell has closed it, with >&-
            sys.stdout.flush()  # here, where a broken pipe can still be handled
    except BrokenPipeError:
        # the interpreter flushes once more at its end, and must find somewhere to write to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _run(argv: list[str] | None) -> int:
    if HIDDEN is not None:
        _complain(HIDDEN)
        return FAILED
    debug, command = False, None
    try:
        parser = build_parser()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next, see `ebseg completion`
            import argcomplete

            argcomplete.autocomplete(parser)
        args = parser.parse_args(argv)
        debug, command = args.debug, args.run
        code: int = args.run(args)
        return code
    except SystemExit as stop:  # from argparse, which has said all there is to say
        return stop.code if isinstance(stop.code, int) else DONE
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            from model.urls import without_secrets

            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        code, message = _exit(error, command)
        _complain(message)
        return code


def _exit(error: BaseException, command: object) -> tuple[int, str]:
    """The exit code and what is said of an error in a command's function."""
    from model.errors import FetchError, ModelError
    from training.errors import RefusedError

    match error:
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case RefusedError() | FetchError():
            return FAILED, str(error)
        case ModelError():
            return UNUSABLE, str(error)
        case ModuleNotFoundError(name=str(name)) if (extra := _extra(name, _home(command))) is not None:
            return FAILED, _missing(name, extra)
        case OSError(filename=str(name), strerror=str(reason)):
            return FAILED, f"{name}: {reason}"
        case OSError():
            return FAILED, str(error)
    return FAILED, f"{type(error).__name__}: {error} (this is a fault of ebseg; --debug tells where)"


def _missing(module: str, extra: str) -> str:
    wanted = f"ebseg[{extra}]" if extra else "ebseg"
    return f"this needs the package {module.partition('.')[0]}: pip install '{wanted}'"


def _home(command: object) -> str:
    """The module of a command's function."""
    return str(getattr(command, "__module__", ""))


def _extra(module: str, wanted_by: str) -> str | None:
    """The extra that brings a missing module: the one of the module that wants it, if that does.

    None if none does.
    """
    top, own = module.partition(".")[0], wanted_by.partition(".")[0]
    if own in EXTRAS and top in EXTRAS[own] | EXTRAS["model"]:
        return own
    return next((extra for extra, packages in EXTRAS.items() if top in packages), None)


def _complain(message: str) -> None:
    if HIDDEN is None:  # else `model` is somebody else's
        from model.urls import without_secrets

        message = without_secrets(message)
    print(f"ebseg: error: {' '.join(message.split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
