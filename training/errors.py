"""What goes wrong in training, as exceptions whose message tells a user what to do."""

from model.errors import ModelError


class TrainingError(ModelError):
    """A run cannot start or go on."""


class RefusedError(TrainingError):
    """A checkpoint that can be published, but is not good enough."""


class NothingToCompareError(TrainingError):
    """A measurement that the pictures at hand leave nothing for."""


class DatasetError(TrainingError):
    """A data set is not what its layout says; the message names the files."""
