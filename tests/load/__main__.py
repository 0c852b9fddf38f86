"""`python -m tests.load`: prints one JSON line; exit code 1 if anything was not as it should be."""

import argparse
import json
import sys

from tests.load.run import Plan, run


def main() -> int:
    """Runs what the flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default: 60)")
    parser.add_argument("--clients", type=int, default=64, help="at the same time (default: 64)")
    parser.add_argument(
        "--chaos", action="store_true", help="with faults of Redis, registry, clients and pictures"
    )
    parser.add_argument("--registry-poll-s", type=float, help="of the service (default: its own)")
    parser.add_argument("--seed", type=int, default=0, help="of all choices (default: 0)")
    args = parser.parse_args()
    report = run(
        Plan(
            seconds=args.seconds,
            clients=args.clients,
            chaos=args.chaos,
            registry_poll_s=args.registry_poll_s,
            seed=args.seed,
        )
    )
    print(json.dumps(report))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
