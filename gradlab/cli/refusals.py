"""Arguments of every command that no file, generator or folder can hold are refused here."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradlab import validation
from gradlab.errors import InputError
from gradlab.user_code.loading import is_user_function

_LONGEST = 200  # bytes of a file's name: what is kept beside a run has longer ones, 255 is the end
_SEEDS = ("seed", "first_seed")
_FILES = (
    "file", "data", "policy", "critic", "model", "gradient_model", "profile", "export", "output",
    "html", "before", "after",
)  # fmt: skip


def check_words(words: Sequence[str]) -> None:
    for k, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InputError(f"argument {k} is no UTF-8 text: rename what it names") from None
        if "\0" in word:
            raise InputError(f"argument {k} holds a NUL: leave it out")


def check(command: Any) -> None:
    """Check the fields of a command, whatever their use."""
    given = ((field.name, getattr(command, field.name)) for field in fields(command))
    singly = (
        (n, x) for n, value in given for x in (value if isinstance(value, tuple) else [value])
    )
    for name, value in singly:
        option = f"--{name.replace('_', '-')}"
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, int):
            validation.whole(option, value, 0 if name in _SEEDS else -validation.LARGEST)
        elif isinstance(value, float):
            validation.number(option, value)
        elif isinstance(value, Path) or name in _FILES:
            text = str(value)
            path = Path(text.rpartition(":")[0] if is_user_function(text) else text)
            if not text or path.name in ("", ".."):
                raise validation.expected(option, text, "the name of a file")
            longest = max(len(part.encode()) for part in path.parts)
            if longest > _LONGEST:
                raise InputError(
                    f"{option} has a name of {longest} bytes, expected {_LONGEST} or less"
                )
            try:
                mode = os.stat(path).st_mode
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise InputError(
                    f"{option} is {text!r}, which cannot be reached ({reason})"
                ) from None
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(f"{option} is {text}, a device or pipe: name a file")
