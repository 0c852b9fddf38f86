"""The commands of training, one module each; they load what they need when they run."""

import argparse

from training.commands import (
    ablate,
    calibrate,
    check,
    encoders,
    evaluate,
    prepare,
    pretrain,
    publish,
    reproduce,
    storybook,
    train,
    train_tiny,
)


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", announcer: publish.MakeAnnouncer
) -> None:
    """Adds them in the order in which they are used.

    Args:
        commands: of the command line.
        announcer: makes what tells services of a new version, of their Redis' URL; None where there is none.
    """
    for module in (
        prepare,
        check,
        storybook,
        pretrain,
        encoders,
        train,
        train_tiny,
        evaluate,
        reproduce,
        calibrate,
        ablate,
    ):
        module.add(commands)
    publish.add(commands, announcer)
