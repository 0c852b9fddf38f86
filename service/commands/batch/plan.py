"""The run that the flags of `ebseg batch` stand for, looked at before a model is loaded."""

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from model.commands.choosing import expected_folder, pulled_folder
from model.urls import shown
from service.commands.flags import given_classes, given_settings
from service.commands.remote import chosen_key, connected
from service.errors import UsageError

if TYPE_CHECKING:
    from ebseg_client import EBSegClient, ModelDetails
    from service.batch.plan import BatchPlan

ASKING_S = 60.0  # that a service may take to say what it serves


def planned(args: argparse.Namespace) -> "tuple[BatchPlan, str, str]":
    """The run, and name and digest of the model.

    Raises:
        UsageError: flags or classes that cannot be used, or that would be ignored.
        ServiceError, SettingsError, ModelError: the classes, the settings, or there is no such model.
        ClientError, OSError: the service does not answer, or has no such model, or none yet.
    """
    from service.batch.plan import BatchPlan

    _refuse_mixture(args)
    document = _document(args)
    if args.url is None:
        own, model, digest = _here(args, document)
    else:
        own, document, digest = _there(args, document)
        model = args.url
    plan = BatchPlan(
        source=args.source,
        out=args.out,
        request=document,
        form=args.form,
        shard_size=args.shard_size,
        share=_share(args.shard),
        batch_size=args.batch_size,
        threads=args.threads,
        retry_errors=args.retry_errors,
        **own,
    )
    return plan, model, digest


def _here(args: argparse.Namespace, document: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    """What a plan for devices of this machine has of its own, and name and digest of the model."""
    from model.storage.verify import verify
    from service.batch.request import read_batch_request
    from service.segmentation.requested import requested_vocabulary
    from service.settings import load_settings

    given = given_settings(args)
    if args.model is not None:
        given["checkpoint"] = expected_folder(args.model)
    settings = load_settings(given)
    requested_vocabulary(read_batch_request(document, remote=False), settings.max_classes)
    if args.model is not None:
        pulled_folder(args.model, yes=args.yes)
    folder = settings.checkpoint_folder()
    manifest = verify(folder, digests=False)
    own = {
        "checkpoint": str(folder),
        "dtype": settings.dtype,
        "max_pixels": settings.max_pixels,
        "devices": _devices(settings.device, args.workers)
        if args.on is None
        else _ray_device(settings.device),
    }
    return own, f"{manifest.name}/{manifest.version}", manifest.digest


def _there(args: argparse.Namespace, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The same for a running service: one version makes all rows, that of the output's start."""
    from service.batch.request import read_batch_request

    read_batch_request(document, remote=True)
    begun = _begun(args.out, args.url, document)
    wanted = begun or document
    with connected(args.url, args.api_key, ASKING_S) as client:
        model = _serving(client, wanted.get("model"), args.url)
    chosen = {"model": model.name, "version": wanted.get("version") or model.version}
    serve = {one.version: one.digest for one in model.versions if one.role != "draining"}
    if chosen["version"] not in serve:
        lost = f"{args.url} does not serve version {chosen['version']} of {model.name}"
        what = (
            f"pin it there, or take another --out: {args.out} was begun with it"
            if begun
            else "ask for another"
        )
        raise UsageError(f"{lost}, but {', '.join(map(str, serve))}; {what}")
    digest = serve[chosen["version"]]
    own = {
        "checkpoint": None,
        "url": args.url,
        "api_key": chosen_key(args.api_key),
        "devices": ("service",) * (args.workers or 1),
    }
    return own, document | chosen, digest


def _begun(out: str, url: str, document: dict[str, Any]) -> dict[str, Any] | None:
    """The request, with its model and version, of an output that the same command has begun."""
    from service.batch.place import OutputPlace
    from service.batch.plan import RUN_MANIFEST

    content = OutputPlace(out).get(RUN_MANIFEST)
    try:
        pinned = json.loads(content or b"{}")
        request = pinned["request"]
        same = pinned["model"] == shown(url) and request == {**request, **document}
        asked = {name: value for name, value in request.items() if name not in ("model", "version")}
        return request if same and asked.keys() <= document.keys() else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # there is none, or `pin` tells what is wrong with it


def _serving(client: "EBSegClient", name: str | None, url: str) -> "ModelDetails":
    if name is not None:
        return client.model(name)
    models = client.models()
    for model in models:
        if model.default:
            return model
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in models.missing)
    raise OSError(f"{url} serves no model at present: {reasons}")


def _refuse_mixture(args: argparse.Namespace) -> None:
    """No flag is accepted and ignored."""
    if args.on is None and args.address is not None:
        raise UsageError("--address needs --on ray")
    if args.on is not None and (args.url is not None or args.dry_run):
        other = "--dry-run, which measures this machine" if args.url is None else "--url"
        raise UsageError(f"--on ray does not go with {other}")
    here: dict[str, Any] = {f"--{name.replace('_', '-')}": v for name, v in given_settings(args).items()}
    if args.url is None:
        if args.model is not None and "--checkpoint" in here:
            raise UsageError("--model does not go with --checkpoint: give one of them")
        if args.model is None and args.yes:
            raise UsageError("--yes needs a --model that may be missing, as in --model base --yes")
        if args.api_key is not None:
            raise UsageError("--api-key needs --url")
        return
    here |= {"--model": args.model, "--batch-size": args.batch_size, "--yes": args.yes or None}
    for flag, value in here.items():
        if value is not None:
            raise UsageError(f"{flag} does not go with --url: the service has its own")


def _document(args: argparse.Namespace) -> dict[str, Any]:
    others = (args.classes_file, args.vocabulary, args.request)
    if bool(args.classes) + sum(other is not None for other in others) != 1:
        raise UsageError("give one of --classes, --classes-file, --vocabulary and --request")
    if args.request is not None:
        try:
            document = json.loads(args.request.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{args.request} cannot be read as JSON: {error}") from None
        if not isinstance(document, dict):
            raise UsageError(f"{args.request} holds no JSON object")
        return document
    if args.vocabulary is not None:
        return {"vocabulary": args.vocabulary}
    return {"classes": given_classes(args)[0]}


def _devices(setting: str, workers: int | None) -> tuple[str, ...]:
    """A device for each worker; several workers share a device if they are more."""
    if setting == "cpu":
        names = ["cpu"]
    else:
        from service.scheduling.torch_engine import device_names

        names = device_names(setting)
    return tuple(names[index % len(names)] for index in range(workers or len(names)))


def _ray_device(setting: str) -> tuple[str]:
    """The device of every worker: Ray chooses which of a machine's GPUs."""
    if setting not in ("auto", "cpu", "cuda"):
        raise UsageError(f"with --on ray the device is auto, cpu or cuda, got {setting}: Ray chooses the GPU")
    return (setting,)


def _share(text: str | None) -> tuple[int, int]:
    from service.batch.plan import share

    if text is None:
        return 0, 1
    if text.startswith("/"):
        index = os.environ.get("JOB_COMPLETION_INDEX")
        if index is None:
            raise UsageError(
                f"--shard {text} needs JOB_COMPLETION_INDEX, which a Kubernetes Indexed Job sets"
            )
        text = index + text
    return share(text)
