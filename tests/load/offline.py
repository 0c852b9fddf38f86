"""`python -m tests.load.offline`: `ebseg batch` over Storybook pictures of mixed sizes; prints one JSON line.

`rows`: one in a hundred pictures is broken. All processes are killed at a random moment, and the same command
runs again: its rows have to be those of `ebseg segment`, bit for bit, and what was finished has to have
stayed. `rates`: of one worker and of two, a core each, beside the bare engine. `memory`: of a run over a
short and over a long list of pictures that are not there, which all have their rows.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.load import offline_rates
from tests.load.offline_runs import (
    SHARD,
    batch,
    differences,
    finished,
    killed,
    rows_of,
    segment,
    write_pictures,
)

PARTS = ("rows", "rates", "memory")
DRAWN_FOR_RATES = 80  # pictures, which are listed as often as it takes
MOST_GROWTH = 32 << 20  # bytes, between a thousand paths and a million


def rows(folder: Path, pictures: int, seed: int) -> dict[str, Any]:
    """A run that is killed, and goes on, beside `ebseg segment`."""
    source, masks, out = folder / "pictures", folder / "masks", folder / "out"
    broken = write_pictures(source, pictures)
    segment(source, masks, cores=2)
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run in the same folder
    shards = -(-pictures // SHARD)
    before = killed(source, out, seed, shards)
    again = batch(source, out, 2)
    violations = differences(rows_of(out), source, masks, broken)
    after = finished(out)
    if {name: after.get(name) for name in before} != before:
        violations.append("a shard was done again although it was finished")
    done = sum(min(SHARD, pictures - SHARD * int(name[5:11])) for name in before)
    if (again["done_before"], again["segmented"]) != (done, pictures - done):
        violations.append(f"{done} rows were finished, and then: {again}")
    return {
        "pictures": pictures,
        "broken": len(broken),
        "errors": again["errors"],
        "shards": shards,
        "finished_when_killed": len(before),
        "violations": violations,
    }


def rates(folder: Path, rated: int, *, cpu_time: bool) -> dict[str, Any]:
    """See `offline_rates.measured`."""
    source = folder / "rated"
    broken = write_pictures(source, min(DRAWN_FOR_RATES, rated))
    good = [str(path) for path in sorted(source.iterdir()) if path.name not in broken]
    paths = (good * -(-rated // len(good)))[:rated]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return offline_rates.measured(paths, Path(place), cpu_time=cpu_time)


def memory(folder: Path, most: int) -> dict[str, Any]:
    """Highest memory of a run's own process over lists of pictures that are not there."""
    peaks = {}
    for count in (min(1000, most), most):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            listed = Path(place, "list.txt")
            with listed.open("w") as file:
                for index in range(count):
                    file.write(f"folder/{index:07}.jpg\n")
            line = batch(listed, Path(place, "out"), 1, "--shard-size", "256")
            assert (line["rows"], line["errors"]) == (count, count)
            peaks[count] = int(line["peak_bytes"])
    grown = max(peaks.values()) - min(peaks.values())
    return {
        "peak_megabytes_by_paths": {str(count): round(peak / 1e6, 1) for count, peak in peaks.items()},
        "violations": ["memory grows with the list"] if grown > MOST_GROWTH else [],
    }


def main() -> int:
    """Runs what the flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.offline", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="a part alone (default: all)")
    parser.add_argument("--pictures", type=int, default=5000, help="that are segmented (default: 5000)")
    parser.add_argument("--rated", type=int, default=320, help="pictures of a rate (default: 320)")
    parser.add_argument("--paths", type=int, default=1_000_000, help="of the long list (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="of the moment of the kill (default: 0)")
    parser.add_argument("--folder", type=Path, help="to work in; what is drawn and segmented there is kept")
    parser.add_argument(
        "--cpu-time", action="store_true", help="judge rates by seconds of processors, not by the clock"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and takes along what it has started
    report: dict[str, Any] = {"load_average": os.getloadavg()[0]}
    violations: list[str] = []
    with ExitStack() as stack:
        if args.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebseg-offline-")))
        else:
            folder = args.folder.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS if args.only is None else (args.only,):
            if part == "rows":
                found = rows(folder, args.pictures, args.seed)
            elif part == "rates":
                found = rates(folder, args.rated, cpu_time=args.cpu_time)
            else:
                found = memory(folder, args.paths)
            violations += found.pop("violations")
            report |= found
    print(json.dumps(report | {"violations": violations}))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
