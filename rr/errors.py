"""The error that a person can put right."""


class InputError(ValueError):
    """What was given can't work; the message says what can.

    The scripts show it as one line. Whatever else is raised is a fault of the code, the user's or ours, and keeps its
    traceback.
    """
