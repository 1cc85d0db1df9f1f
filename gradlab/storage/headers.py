"""The header of a run of any kind, and the errors of a file that should hold one.

The attributes of a record: its kind, the command that makes it again, seed, commit, and as JSON the
configuration, the environment, and whatever else a kind of run has to say.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradlab.errors import InputError
from gradlab.storage.records import Attribute, Record

# What a foreign file can raise where its content is taken apart.
# Kinds of which `gradlab report` makes a page (`reporting.kinds.KINDS`).
SHOWN = ("profile", "training", "probe", "jacobians", "remedies", "logs", "race")
UNREADABLE = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


def header(
    kind: str, config: Mapping[str, Any], environment: Mapping[str, str], **more: Mapping[str, Any]
) -> dict[str, Attribute]:
    """The attributes of a run."""
    objects = {"config": config, "environment": environment, **more}
    return {
        "kind": kind,
        "command": str(config.get("command", "")),
        "seed": int(config.get("seed", 0)),
        "commit": environment.get("commit", ""),
        **{name: json.dumps(value) for name, value in objects.items()},
    }


def described(record: Record, *more: str) -> dict[str, Any]:
    """Configuration, environment and the objects called `more`, by name, as `header` got them.

    Raises:
        KeyError, ValueError: one is missing, or no JSON object.
    """
    names = ("config", "environment", *more)
    header = {name: json_object(record.attributes[name]) for name in names}
    header["environment"] = {key: str(value) for key, value in header["environment"].items()}
    return header


def shown(path: Path, kind: object) -> str:
    """The end of a refusal: what shows the file instead, or that it is no run."""
    return f": see `gradlab report {path}`" if kind in SHOWN else ": it is no run"


@contextlib.contextmanager
def content_of(record: Record, path: Path, kind: str, what: str) -> Iterator[None]:
    """Within, the content of a record is taken apart, and any fault in it is an InputError.

    Args:
        what: a run of this kind, as a message calls it, "measurement".

    Raises:
        InputError: the record is of another kind, or not complete.
    """
    stored = record.attributes.get("kind")
    if stored != kind:
        raise InputError(f"{path} holds {stored!r}, expected a {what}{shown(path, stored)}")
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path} is not a complete {what} ({error}): make it again") from error


def json_object(text: object) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        ValueError: it holds something else.
    """
    value = json.loads(str(text))
    if not isinstance(value, dict):
        raise ValueError("what should be a JSON object is none")
    return value
