"""JSON on disk with a checksum of its content: files between two runs of one command."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradlab.errors import Doubtful
from gradlab.storage.untrusted import UNSEALED
from gradlab.storage.whole_files import placed

KEY = "checksum"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """In one step. Raises OSError."""
    with placed(path) as temporary:
        temporary.write_text(json.dumps({**content, KEY: checksum(content)}))


def read(path: Path) -> dict[str, Any]:
    """What `write` was given; warns where there is no checksum.

    Raises:
        OSError, ValueError: it cannot be read, is not JSON, or has a wrong checksum.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object")
    stated = content.pop(KEY, None)
    if stated is None:
        warnings.warn(UNSEALED.format(path=path), Doubtful, stacklevel=2)
    elif stated != checksum(content):
        raise ValueError(f"{path} has a wrong checksum")
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """CRC-32 of the content as JSON gives it back: keys as texts, tuples as lists."""
    again = json.loads(json.dumps(content))
    return f"{zlib.crc32(json.dumps(again, sort_keys=True).encode()):08x}"
