"""What ends a set-up."""


class SetupError(Exception):
    """Something is missing or wrong; the message is one sentence and says what to do."""
