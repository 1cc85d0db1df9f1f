"""A user's code: loaded from a file, called, and differentiated in any grad mode.

Objects of a file are named as PATH.py:NAME, and loading executes the file. A function without
required arguments is called and returns the object; anything else is the object. An error in the
user's code ends in one line with the user's file and line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from gradlab.errors import InputError, in_short, one_line


def is_user_function(name: object) -> bool:
    """Whether the name has the form PATH.py:NAME."""
    return str(name).rpartition(":")[0].endswith(".py")


def executed(file: str) -> ModuleType:
    """The module of a file.

    Its folder is importable: first while the file is executed and last from then on, so that no
    file in it hides an installed package.
    """
    path = Path(file).absolute()
    if not path.is_file():
        raise InputError(f"{file}: no such file; expected PATH.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(f"gradlab_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} cannot be imported as Python: name a .py file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses in the file look their module up here.
    sys.modules[spec.name] = module
    folder = str(path.parent)
    with failing(file):
        sys.path.insert(0, folder)
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(folder)
            if folder not in sys.path:
                sys.path.append(folder)
    return module


def load_object(name: str) -> Any:
    """The object of "PATH.py:NAME", as it is in the file."""
    file, _, wanted = name.rpartition(":")
    module = executed(file)
    if not hasattr(module, wanted):
        there = ", ".join(own_names(module)) or "none"
        raise InputError(f"{file} has no function {wanted!r}: it has {there}")
    return getattr(module, wanted)


def own_names(module: ModuleType) -> list[str]:
    """Public names of a file, without what it imports."""
    here = module.__name__
    return [
        name
        for name, found in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(found)
        and type(found).__module__ != "__future__"
        and (not hasattr(found, "__qualname__") or found.__module__ == here)
    ]


def makes(name: str, found: Any, word: str = "task") -> bool:
    """Whether it is called to see what it returns: make…, `word` or …_`word`, without arguments."""
    named = name.startswith("make") or name.rpartition("_")[2] == word
    return named and inspect.isroutine(found) and needs_nothing(found)


def load_made(name: str) -> Any:
    """The object that "PATH.py:NAME" returns, if it needs no arguments, else the object itself."""
    target = load_object(name)
    if not (inspect.isroutine(target) or inspect.isclass(target)):
        return target
    if needs_nothing(target):
        return called(name, target)
    if inspect.isclass(target):
        raise InputError(f"{name} is a class that needs arguments: name a function that makes one")
    return target


def needs_nothing(function: Callable[..., Any]) -> bool:
    """It can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def called(name: str, function: Callable[..., Any], **settings: object) -> Any:
    """The return value of a function of "PATH.py:NAME"."""
    with failing(name.rpartition(":")[0]):
        return function(**settings)


@contextlib.contextmanager
def failing(file: str) -> Iterator[None]:
    """Inside, errors of a user's file become one line with the place in that file."""
    try:
        yield
    except SyntaxError as error:
        place = f"{error.filename or file}, line {error.lineno}"
        raise InputError(f"{place}: {type(error).__name__}: {error.msg}") from error
    except SystemExit as error:
        raise InputError(
            f"{_place(error, file)} ends the process when the file is executed: put it under "
            f'if __name__ == "__main__"'
        ) from error
    except Exception as error:
        words = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{_place(error, file)}: {words}") from error


def _place(error: BaseException, file: str) -> str:
    """The innermost line of the traceback in the file or beside it."""
    folder = Path(file).absolute().parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if folder in Path(each.filename).parents]
    # A package's own code: gradlab's, or one below the user's folder in a virtual environment.
    inner = [
        each
        for each in ours
        if "site-packages" not in each.filename
        and Path(__file__).parent not in Path(each.filename).parents
    ]
    return f"{inner[-1].filename}, line {inner[-1].lineno}" if inner else file


_P = ParamSpec("_P")
_R = TypeVar("_R")


def differentiating(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` outside of the caller's `torch.no_grad()` and `torch.inference_mode()`."""
    import torch  # here, since the command line loads files, and answers --help without torch

    inside: Callable[_P, _R] = torch.enable_grad()(function)
    return torch.inference_mode(False)(inside)


_INSTALLED = (
    __file__, "<frozen",
    sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"),
)  # fmt: skip


@contextmanager
def running(name: str, remedy: Callable[[str], str] | None = None) -> Iterator[None]:
    """Inside, an error of the user's function becomes one line; InputError passes as it is.

    Args:
        name: its role, as "step"; remedy: advice, from the error's words.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        words = in_short(one_line(f"{type(error).__name__}: {error}"), 300)
        more = "" if remedy is None else remedy(str(error))
        frames = traceback.extract_tb(error.__traceback__)
        users = [each for each in frames if not each.filename.startswith(_INSTALLED)]
        place = f"; {users[-1].filename}, line {users[-1].lineno}" if users else ""
        raise InputError(f"{name} failed ({words}{place}){more}") from error


def graph_nodes(*made: Any) -> list[Any]:
    """The operations that tensors come from, each once; those of leaves have a `variable`."""
    waiting, met = [each.grad_fn for each in made], dict[Any, None]()
    while waiting:
        node: Any = waiting.pop()
        if node is not None and node not in met:
            met[node] = None
            waiting += [each for each, _ in node.next_functions]
    return [*met]
