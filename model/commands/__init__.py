"""The model's own commands, one module each.

Modules that load torch are imported by the commands, not by these files: `ebseg --help` has to be quick.
Commands raise domain errors; `ebseg.main` turns them into one line and an exit code.
"""

import argparse

from model.commands import export, import_released, init, inspect, pull


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands; each parsed namespace carries its function as `run`."""
    for module in (pull, import_released, inspect, init, export):
        module.add(subparsers)
