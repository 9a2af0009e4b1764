"""The error that a user can put right."""


class InputError(ValueError):
    """What was given can't work; the message says what can.

    The scripts show it as one line. Whatever else is raised is a fault of the code, the user's or ours, and keeps its
    traceback.
    """


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
