"""The service's own commands, one module each in `service/commands`.

Only light modules are imported here; the commands import the rest, so that `ebseg --help` is quick.
Errors of the model package go on to `ebseg.main`; the service's own are reported by the commands.
"""

import argparse

from service.commands import models, serve, vocabularies
from service.commands.batch import command as batch
from service.commands.segment import command as segment


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands; each parsed namespace carries its function as `run`."""
    for module in (serve, segment, batch, models, vocabularies):
        module.add(subparsers)
