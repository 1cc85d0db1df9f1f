"""Networks on disk without pickle: parameters in safetensors, the architecture as JSON beside them.

A network of the user's own is named as `file.py:function`; the function takes nothing and returns
the module.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.networks.mlp import Policy, QCritic, build

KEY = "gradlab.architecture"


def save(module: nn.Module, path: str | Path) -> None:
    """Writes `module` in one step; an earlier file at `path` is replaced.

    Raises:
        InputError: the module carries no `architecture`, or the path cannot be written.
    """
    path = Path(path)
    if not isinstance(module, Policy | QCritic):
        kind = type(module).__name__
        raise InputError(f"{kind} has no architecture to store: keep it as file.py:function")
    metadata = {KEY: json.dumps(module.architecture, allow_nan=False)}
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(serialize(tensors, metadata))
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"{path} cannot be written ({error}): choose another folder") from error


def load(path: str | Path) -> nn.Module:
    """The network in a checkpoint, in its stored dtype, or what `file.py:function` returns.

    Raises:
        InputError: no such file or function, a damaged or foreign file, an unknown architecture.
    """
    file, _, function = str(path).rpartition(":")
    if file.endswith(".py"):
        return _call(Path(file), function)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .safetensors file or file.py:function")
    architecture, tensors = _read(path)
    try:
        # Built without memory: a forged size costs nothing and fails against the stored shapes.
        with torch.device("meta"):
            module = build(architecture)
        module.load_state_dict(tensors, assign=True)
    except (InputError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds no network that gradlab knows: {reason}") from error
    return module


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            architecture = json.loads((file.metadata() or {})[KEY])
            # Cloned, since a matrix product depends in its last bit on how memory is aligned.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except KeyError as error:
        raise InputError(f"{path} is not a gradlab checkpoint: use file.py:function") from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or no safetensors file: save it again") from error
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if not isinstance(architecture, dict) or not dtypes <= {torch.float32, torch.float64}:
        raise InputError(f"{path} is no gradlab checkpoint of float32 or float64: save it again")
    return architecture, tensors


def _call(file: Path, function: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location(f"gradlab_user_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InputError(f"{file}: no such file; give file.py:function")
    namespace = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(namespace)
    factory = getattr(namespace, function, None)
    if not callable(factory):
        raise InputError(f"{file} has no function {function!r}: give file.py:function")
    module = factory()
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise InputError(f"{file}:{function} returned a {kind}, expected a torch.nn.Module")
    return module
