"""Exit codes of the service's commands, and what is said when they are not 0."""

import sys

from model.urls import without_secrets

DONE, FAILED, UNUSABLE = 0, 1, 2


def complain(error: object, code: int) -> int:
    """Prints an error as one line on standard error, without secrets of URLs; returns the exit code."""
    print(f"ebseg: error: {without_secrets(' '.join(str(error).split()))}", file=sys.stderr)
    return code
