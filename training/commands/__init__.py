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


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds them in the order in which they are used."""
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
        publish,
    ):
        module.add(commands)
