"""Tensors on disk without pickle: safetensors files with their kind and a checksum.

    metadata    one key → a JSON object, whose "checksum" is the CRC-32 of the rest of it and of
                every tensor's name, type, shape and bytes

The format has none of its own: a flipped bit in a weight would be read as another weight. One key,
since safetensors writes several in no fixed order, and equal networks make equal files.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gradlab.errors import Doubtful
from gradlab.storage.untrusted import UNSEALED

CHECKSUM = "checksum"


def metadata(key: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of `tensors`, which are contiguous and on the CPU."""
    plain = json.loads(json.dumps(about))
    return {key: json.dumps(plain | {CHECKSUM: _checksum(plain, tensors)})}


def read(path: Path, key: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors and the metadata of a file; warns where it has no checksum.

    Raises:
        KeyError: it has no metadata under `key`. OSError, SafetensorError, ValueError,
            RecursionError: it cannot be read, or its checksum is wrong.
    """
    with safe_open(path, framework="pt") as file:
        about = _about(file, key)
        # Cloned, since a matrix product depends in its last bit on how memory is aligned.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    checksum = about.pop(CHECKSUM, None) if isinstance(about, dict) else None
    if checksum is None:
        warnings.warn(UNSEALED.format(path=path), Doubtful, stacklevel=3)
    elif checksum != _checksum(about, tensors):
        raise ValueError(f"{path} has a wrong checksum")
    return tensors, about


def metadata_of(path: Path, key: str) -> Any:
    """The metadata of a file alone, unchecked.

    Raises:
        KeyError, OSError, SafetensorError, ValueError, RecursionError: it cannot be read.
    """
    with safe_open(path, framework="pt") as file:
        return _about(file, key)


def _about(file: Any, key: str) -> Any:
    return json.loads((file.metadata() or {})[key])


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    check = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        check = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), check)
        check = zlib.crc32(value.detach().reshape(-1).view(torch.uint8).numpy().data, check)
    return f"{check:08x}"
