"""Functions of a user's own file, named as PATH.py:FUNCTION. Loading runs the file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from gradlab.errors import InputError


def load_function(name: str) -> Callable[..., object]:
    """The function that "PATH.py:FUNCTION" names.

    Raises:
        InputError: there is no such file, it is no Python, or it has no such function.
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file}: no such file; expected PATH.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(f"gradlab_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} cannot be imported as Python: name a .py file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses in the file look their module up here.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: object = getattr(module, function, None)
    if not callable(found):
        raise InputError(f"{file} has no function {function!r}: expected PATH.py:FUNCTION")
    return found
