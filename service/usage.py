"""What is wrong with a command's or a caller's arguments; imports nothing, so that saying so is quick."""


class UsageError(Exception):
    """An argument that cannot be used, or a file that cannot be read or written as asked."""
