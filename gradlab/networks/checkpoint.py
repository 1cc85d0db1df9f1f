"""Networks on disk without pickle: parameters in safetensors, the architecture as JSON beside them.

A network of the user's own is named as `file.py:function`: the function takes nothing and returns
the module, or is itself the critic. The file is executed. A checkpoint of an ensemble of networks
of the user's own is named as `file.py:Net=model.safetensors`.

Tensors on disk without pickle: safetensors files with their kind and a checksum.

    metadata    one key → a JSON object, whose "checksum" is the CRC-32 of the rest of it and of
                every tensor's name, type, shape and bytes

The format has none of its own: a flipped bit in a weight would be read as another weight. One key,
since safetensors writes several in no fixed order, and equal networks make equal files.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import Doubtful, InputError
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, MemberMLP, OwnNetwork
from gradlab.networks.mlp import FunctionCritic, Policy, QCritic, VCritic
from gradlab.networks.policies import Gaussian, GaussianPolicy
from gradlab.storage.untrusted import UNSEALED
from gradlab.storage.whole_files import placed
from gradlab.user_code import is_user_function, load_made, load_object

_CHECKSUM = "checksum"
OF_OWN = re.compile(r"(.*?\.py:\w+)=(.+)")  # names a checkpoint of networks of the user's own


def metadata(key: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of `tensors`, which are contiguous and on the CPU."""
    plain = json.loads(json.dumps(about))
    return {key: json.dumps(plain | {_CHECKSUM: _checksum(plain, tensors)})}


def read(path: Path, key: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors and the metadata of a file; warns where it has no checksum.

    Raises:
        KeyError: it has no metadata under `key`. OSError, SafetensorError, ValueError,
            RecursionError: it cannot be read, or its checksum is wrong.
    """
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})[key])
        # Cloned, since a matrix product depends in its last bit on how memory is aligned.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    checksum = about.pop(_CHECKSUM, None) if isinstance(about, dict) else None
    if checksum is None:
        warnings.warn(UNSEALED.format(path=path), Doubtful, stacklevel=3)
    elif checksum != _checksum(about, tensors):
        raise ValueError(f"{path} has a wrong checksum")
    return tensors, about


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    check = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        check = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), check)
        check = zlib.crc32(value.detach().reshape(-1).view(torch.uint8).numpy().data, check)
    return f"{check:08x}"


KEY = "gradlab.architecture"
_Kind = Policy | GaussianPolicy | QCritic | VCritic | MemberMLP | GaussianEnsemble
KINDS: Mapping[str, type[_Kind]] = {
    "policy": Policy,
    "gaussian_policy": GaussianPolicy,
    "q_critic": QCritic,
    "v_critic": VCritic,
    "member_mlp": MemberMLP,
    "gaussian_ensemble": GaussianEnsemble,
}
_WRAPPER = "gaussian"  # a policy of kind "policy" with a fixed std


def architecture_of(module: nn.Module) -> dict[str, Any]:
    """The JSON-able dictionary from which `build` makes a network of the same shape.

    Raises:
        InputError: the module is none of gradlab's.
    """
    if isinstance(module, Gaussian) and isinstance(module.policy, Policy):
        inner = module.policy.architecture
        std = list(module.std) if isinstance(module.std, tuple) else module.std
        return {"kind": _WRAPPER, "policy": inner, "std": std}
    if isinstance(module, _Kind):
        return module.architecture
    kind = type(module).__name__
    raise InputError(f"{kind} has no architecture to store: keep it as file.py:function")


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """The network that an `architecture` dictionary describes, freshly initialised.

    Raises:
        InputError: the dictionary describes no network of gradlab.
    """
    kind = architecture.get("kind")
    arguments = {name: value for name, value in architecture.items() if name != "kind"}
    try:
        if kind == _WRAPPER:
            inner = dict(arguments.pop("policy"))
            inner.pop("kind")
            return Gaussian(Policy(**inner), **arguments)
        if not isinstance(kind, str) or kind not in KINDS:
            kinds = ", ".join([*KINDS, _WRAPPER])
            raise InputError(f"architecture kind is {kind!r}, expected one of {kinds}")
        return KINDS[kind](**arguments)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"architecture of kind {kind!r} cannot be built: {error}") from error


def save(module: nn.Module, path: str | Path) -> None:
    """Writes `module` in one step; an earlier file at `path` is replaced.

    Raises:
        InputError: the module carries no `architecture`, or the path cannot be written.
    """
    path = Path(path)
    architecture = architecture_of(module)
    state = module.state_dict().items()
    held = {name: value.detach().cpu().contiguous() for name, value in state}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path) as temporary:
            temporary.write_bytes(serialize(held, metadata(KEY, architecture, held)))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written ({error}): choose another folder") from error


def load(path: str | Path, network: str | OwnNetwork = "gaussian") -> nn.Module:
    """The network in a checkpoint, in its stored dtype, or what `file.py:function` returns.

    Args:
        network: of an ensemble of your own networks: which; any other checkpoint knows its own.

    Raises:
        InputError: no such file or function, a damaged or foreign file, an unknown architecture.
    """
    if of_own := OF_OWN.fullmatch(str(path)):
        own, file = of_own.groups()
        return load(file, OwnNetwork(own, load_object(own)))
    if is_user_function(path):
        return _made(str(path))
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .safetensors file or file.py:function")
    try:
        held, architecture = read(path, KEY)
    except (KeyError, SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged or no checkpoint of gradlab: save it again, or name "
            f"FILE.py:function, which loads it"
        ) from error
    dtypes = {tensor.dtype for tensor in held.values()}
    if not isinstance(architecture, dict) or not dtypes <= {torch.float32, torch.float64}:
        raise InputError(f"{path} is no checkpoint of float32 or float64: save it again")
    name = architecture.get("network")
    if isinstance(network, OwnNetwork):
        architecture = architecture | {"network": network}
    elif is_user_function(name):  # which a file that one was given does not execute
        raise InputError(f"{path} holds networks of one's own: name it as {name}={path}")
    try:
        # Built without memory: a forged size costs nothing and fails against the stored shapes.
        with torch.device("meta"):
            module = build(architecture)
        module.load_state_dict(held, assign=True)
    except (InputError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds no network that gradlab knows: {reason}") from error
    return module


def _made(name: str) -> nn.Module:
    made = load_made(name)
    if inspect.isroutine(made):
        return FunctionCritic(made)
    if not isinstance(made, nn.Module):
        got = validation.shown(made)
        raise InputError(f"{name} returned {got}, expected a torch.nn.Module")
    return made
