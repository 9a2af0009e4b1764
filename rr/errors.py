"""The errors that a user can put right."""


class InputError(ValueError):
    """What was given can't work; the message says what can.

    The scripts show it as one line. Whatever else is raised is a fault of the code, the user's or ours, and keeps its
    traceback.
    """


class WriteError(OSError):
    """A file can't be written: the disk is full or read-only, a folder is gone. What was there before is still there.

    The scripts show it as one line and end with exit code 1.
    """


def printable(text: str) -> str:
    """The text with what could steer a terminal as it is typed in Python: names may come from anyone's file."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def in_one_line(text: str) -> str:
    """The same in one line; messages of libraries may have several."""
    return printable(" ".join(text.split()))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
