"""What gradlab raises on purpose: bad input, and work that failed."""


class InputError(ValueError):
    """Bad input. The message is one line: the argument, what was got, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Failure(RuntimeError):
    """Work that could not be finished though the input was good: a run that diverged, a full disk.

    The message says what is kept and what to do; the command line exits with code 1.
    """
