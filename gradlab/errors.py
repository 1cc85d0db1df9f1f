"""The one exception that means "the input, not gradlab, has to change"."""


class InputError(ValueError):
    """Bad input. The message is one line: the argument, what was got, what to do.

    The command line prints it without a traceback and exits with code 2.
    """
