"""What gradlab raises on purpose: bad input, and work that failed.

Messages name arguments as Python has them, `overwrite=True`, `resume=False`; the command line says
the same as options, `--overwrite` and `without --resume`.
"""

import importlib
import re
import textwrap
import time
from typing import Any

_TOOLS = "gradlab.tools"
_ARGUMENT = re.compile(r"(with |\b)(overwrite|resume)=(True|False)\b")


def one_line(message: object) -> str:
    """What was got may be an array, printed in many lines."""
    return " ".join(str(message).split())


def in_short(error: object, width: int = 160) -> str:
    """Its first line, no word of which is cut in two."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return textwrap.shorten(first, width, placeholder=" …")


class InputError(ValueError):
    """Bad input. The message is one line: the argument, what was got, what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class Failure(RuntimeError):
    """Work that could not be finished though the input was good: a run that diverged, a full disk.

    The message says what is kept and what to do; the command line exits with code 1.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class Doubtful(UserWarning):
    """A file whose content is uncertain (without a checksum, or with gaps), or a dear way taken."""


def as_options(message: str) -> str:
    """A message with arguments named as options of the command line."""
    return _ARGUMENT.sub(_option, message)


def _option(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    return f"{before if value == 'True' else 'without '}--{name}"


def not_installed(package: str, extra: str) -> InputError:
    """The error where another's package, an extra, cannot be imported."""
    command = f"pip install -c constraints.txt '.[{extra}]'"
    return InputError(f"{package} is not installed: {command} in a clone of gradlab")


def required(module: str, extra: str, package: str = "") -> Any:
    """A module of another's package, an extra.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise not_installed(package or module, extra) from error


IMPORTED: dict[str, float] = {}  # seconds that the import of a row has taken


def imported(row: str) -> Any:
    """What a row "package.module:name" names; tools, one folder each, are imported so alone.

    Raises:
        InputError: the folder of the tool is not there.
    """
    module, _, name = row.partition(":")
    begun = time.perf_counter()
    try:
        found = getattr(importlib.import_module(module), name)
        IMPORTED[row] = IMPORTED.get(row, 0.0) + time.perf_counter() - begun
        return found
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not missing.startswith(_TOOLS) or not f"{module}.".startswith(f"{missing}."):
            raise
        tool, folder = module.split(".")[2], "/".join(module.split(".")[:3])
        raise InputError(f"the tool {tool} is not installed: {folder} is not there") from None
