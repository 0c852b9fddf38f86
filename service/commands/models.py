"""`ebseg models`: what a running service has loaded, and which version of it serves."""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from model.command import add_command, count, seconds
from model.errors import ModelError
from service.commands.flags import add_service
from service.commands.news import REDIS_HELP, announcer
from service.commands.remote import values, with_client

if TYPE_CHECKING:
    from ebseg_client import EBSegClient, ModelChange, ModelDetails
    from model.storage.serving_changes import ServingChanges
    from model.storage.serving_state import ServingState

CHANGES = {
    "unpin": ("follow the registry again", "unpin ebseg-base"),
    "rollback": ("go back to the version before, and stay there", "rollback ebseg-base"),
    "reload": (
        "look at the registry now, and give refused versions another chance",
        "reload ebseg-base --timeout 120",
    ),
}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its own commands."""
    parser = add_command(
        commands,
        "models",
        None,
        "look at the models of a running service, and change which version serves",
        """
  ebseg models list
  ebseg models show ebseg-base --json
  EBSEG_API_KEY=the-admin-key ebseg models pin ebseg-base 3
""",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    one = add_command(
        actions,
        "list",
        list_models,
        "list the loaded models",
        "\n  ebseg models list\n  ebseg models list --url https://masks.example --json\n",
    )
    add_service(one)
    one = add_command(
        actions,
        "show",
        show,
        "show a model: its versions in memory, and those that were refused, with the reason",
        "\n  ebseg models show ebseg-base\n",
    )
    _add_name(one)
    one = add_command(
        actions,
        "pin",
        pin,
        "stay at a version until unpinned; needs an admin key",
        "\n  EBSEG_API_KEY=the-admin-key ebseg models pin ebseg-base 3\n",
    )
    _add_name(one, version=True)
    _add_registry(one)
    one = add_command(
        actions,
        "canary",
        canary,
        "try a version on a part of the requests, until pin, unpin or rollback; needs an admin key",
        """
  EBSEG_API_KEY=the-admin-key ebseg models canary ebseg-base 4 --percent 10
  ebseg models canary ebseg-base --watch --prometheus http://127.0.0.1:9090

With --watch: says when to go on (exit code 0) or back (1), by what all processes answered in ten minutes.
""",
    )
    one.add_argument("name", metavar="NAME", help="of the model")
    one.add_argument(
        "version", type=count, nargs="?", metavar="VERSION", help="to try; with --watch it may be left out"
    )
    add_service(one)
    watched = one.add_argument_group("watching it")
    watched.add_argument("--watch", action="store_true", help="judge the canary over all processes")
    watched.add_argument("--prometheus", metavar="URL", help="for --watch: where the processes' metrics are")
    watched.add_argument(
        "--answers", type=count, default=200, metavar="N", help="good ones that are enough (default: 200)"
    )
    watched.add_argument(
        "--every", type=seconds, default=15.0, metavar="S", help="between two looks (default: 15)"
    )
    one.add_argument(
        "--percent", type=count, default=10, metavar="N", help="of the requests, 1 to 100 (default: 10)"
    )
    _add_registry(one)
    for verb, (summary, example) in CHANGES.items():
        one = add_command(
            actions,
            verb,
            change,
            f"{summary}; needs an admin key",
            f"\n  EBSEG_API_KEY=the-admin-key ebseg models {example}\n",
        )
        one.set_defaults(verb=verb)
        _add_name(one)
        if verb != "reload":
            _add_registry(one)


def _add_name(parser: argparse.ArgumentParser, *, version: bool = False) -> None:
    parser.add_argument("name", metavar="NAME", help="of the model")
    if version:
        parser.add_argument(
            "version", type=count, metavar="VERSION", help="number of a version of its registry"
        )
    add_service(parser)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry",
        metavar="REGISTRY",
        help="folder or URL to write it into, without a service; every service that follows it obeys",
    )
    parser.add_argument("--redis-url", metavar="URL", help=f"with --registry: {REDIS_HELP}")


def list_models(args: argparse.Namespace) -> int:
    """`ebseg models list`."""

    def use(client: "EBSegClient") -> None:
        models = client.models()
        if args.json:
            print(json.dumps(values(models)))
            return
        from service.commands.tables import print_table

        headings = ("model", "version", "policy", "variant", "device", "numbers", "refused", "registry")
        print_table(headings, (_row(model) for model in models))
        if models.missing:
            missing = ((one.name, one.reason) for one in models.missing)
            print_table(("model", "reason"), missing, title="not serving")

    return with_client(args, use)


def show(args: argparse.Namespace) -> int:
    """`ebseg models show`."""

    def use(client: "EBSegClient") -> None:
        model = client.model(args.name)
        if args.json:
            print(json.dumps(values(model)))
        else:
            _print(model)

    return with_client(args, use)


def pin(args: argparse.Namespace) -> int:
    """`ebseg models pin`."""
    if _into_registry(args):
        return _write(args, lambda changes: changes.pin(args.version))
    return with_client(args, lambda client: _report(args, client.pin(args.name, args.version)))


def canary(args: argparse.Namespace) -> int:
    """`ebseg models canary`."""
    if not 1 <= args.percent <= 100:
        raise ModelError(f"--percent must be 1 to 100, got {args.percent}")
    if args.watch and args.prometheus is None:
        raise ModelError("--watch needs --prometheus URL: one process knows its own responses only")
    if args.version is None and not args.watch:
        raise ModelError("which version? `ebseg models canary NAME VERSION`")
    done, into_registry = 0, _into_registry(args)
    if args.version is not None and into_registry:
        done = _write(args, lambda changes: changes.canary(args.version, args.percent))
    elif args.version is not None:
        done = with_client(
            args, lambda client: _report(args, client.canary(args.name, args.version, args.percent))
        )
    return _watch(args) if args.watch and not done else done


def _watch(args: argparse.Namespace) -> int:
    from service.commands.canary_watch import FleetMetrics, watch

    code = 0

    def use(client: "EBSegClient") -> None:
        nonlocal code
        metrics = FleetMetrics(args.prometheus, args.name, args.timeout)
        notify = partial(print, flush=True)
        rest = {"begun": args.version, "needed": args.answers, "every": args.every}
        code = watch(client, args.name, metrics, **rest, notify=notify)

    return with_client(args, use) or code


def change(args: argparse.Namespace) -> int:
    """`ebseg models unpin`, `rollback` and `reload`."""
    if args.verb != "reload" and _into_registry(args):
        return _write(
            args, lambda changes: {"unpin": changes.unpin, "rollback": changes.rollback}[args.verb]()
        )

    def use(client: "EBSegClient") -> None:
        calls = {"unpin": client.unpin, "rollback": client.rollback, "reload": client.reload}
        _report(args, calls[args.verb](args.name))

    return with_client(args, use)


def _into_registry(args: argparse.Namespace) -> bool:
    """Whether a change is to be written without a service."""
    if args.registry is None and args.redis_url is not None:
        raise ModelError("--redis-url needs --registry: a service tells the others by itself")
    return args.registry is not None


def _write(args: argparse.Namespace, ask: "Callable[[ServingChanges], ServingState]") -> int:
    """Asks the registry itself."""
    from model.storage.serving_changes import ServingChanges
    from model.storage.versions import Versions

    announce = announcer(args.redis_url)
    state = ask(ServingChanges(Versions(f"{args.registry.rstrip('/')}/{args.name}")))
    if announce is not None:
        announce(args.name)
    if args.json:
        print(state.to_json(), end="")
    else:
        print(f"{args.name}: {state} from now on, revision {state.revision}")
    return 0


def _report(args: argparse.Namespace, done: "ModelChange") -> None:
    if args.json:
        print(json.dumps(values(done)))
    else:
        print(f"{done.model.name}: {done.done}")


def _policy(model: "ModelDetails") -> str:
    return model.policy if model.pinned is None else f"pinned to {model.pinned}"


def _asked(model: "ModelDetails") -> str:
    """What the registry asks for, by whom, and whether that is so here."""
    asked = model.asked
    if asked is None:
        return "nothing: the settings count"
    named = [
        ("version", asked.version),
        ("canary", asked.canary),
        ("percent", asked.percent),
    ]
    what = " ".join([asked.policy, *(f"{name} {value}" for name, value in named if value is not None)])
    who = f"by {asked.changed_by or 'somebody'} at {asked.changed_at:%Y-%m-%d %H:%M:%S %Z}"
    return f"{what}, {who}, revision {asked.revision}{'' if asked.obeyed else '; NOT SO HERE'}"


def _row(model: "ModelDetails") -> tuple[object, ...]:
    name = f"{model.name} (default)" if model.default else model.name
    state = "ok" if model.last_error is None else f"failing: {model.last_error}"
    return (
        name,
        f"{model.version}, UNTRAINED" if model.untrained else model.version,
        _policy(model),
        model.variant,
        model.device,
        model.dtype,
        len(model.quarantined) or "",
        "none" if model.policy == "fixed" else state,
    )


def _threshold(card: "Mapping[str, Any]") -> str:
    threshold = "none" if card["threshold"] is None else f"{card['threshold']:.3f}"
    return f"{threshold}, {card['threshold_note']}"


def _print(model: "ModelDetails") -> None:
    from service.commands.tables import print_pairs, print_table

    print_pairs(
        [
            ("name", model.name + (" (answers requests that name none)" if model.default else "")),
            ("version", f"{model.version}{', UNTRAINED: its masks mean nothing' if model.untrained else ''}"),
            ("digest", model.digest),
            ("licence", model.license or "unknown"),
            ("policy", _policy(model)),
            ("asked", _asked(model)),
            ("variant", model.variant),
            ("device", f"{model.device}, {model.dtype}"),
            ("for", "unknown" if model.card is None else model.card["domain"]),
            ("threshold", "none" if model.card is None else _threshold(model.card)),
            ("registry", model.last_error or "no error"),
            ("looked at", model.last_checked_at or "never"),
        ]
    )
    print_table(
        ("version", "role", "in flight", "loaded at", "took"),
        (
            (
                one.version,
                one.role,
                one.in_flight,
                f"{one.loaded_at:%Y-%m-%d %H:%M:%S %Z}",
                f"{one.load_seconds:.1f} s",
            )
            for one in model.versions
        ),
        title="in memory",
    )
    if model.quarantined:
        print_table(
            ("version", "since", "reason"),
            ((one.version, f"{one.since:%Y-%m-%d %H:%M:%S %Z}", one.reason) for one in model.quarantined),
            title="refused",
        )
    if model.unfinished:
        print_table(
            ("version", "seen", "lacks"),
            ((one.version, f"{one.since:%Y-%m-%d %H:%M:%S %Z}", one.reason) for one in model.unfinished),
            title="not all here yet",
        )
