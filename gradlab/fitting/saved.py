"""The state of a fit on disk: tensors in safetensors, their configuration as JSON beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from gradlab.errors import Failure, InputError
from gradlab.networks import tensors
from gradlab.storage.whole_files import placed

KEY = "gradlab.fit"


def write_state(path: Path, state: Mapping[str, Tensor], config: Mapping[str, object]) -> None:
    """Replace the saved state in one step.

    Raises:
        Failure: it cannot be written; the one before is kept.
    """
    held = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path) as temporary:
            temporary.write_bytes(save(held, tensors.metadata(KEY, config, held)))
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error}); the one before is kept") from error


def read_state(path: Path, config: Mapping[str, object]) -> dict[str, Tensor]:
    """The state saved for this configuration.

    Raises:
        InputError: there is none, it is damaged, or it belongs to another configuration.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, nothing to resume: start with resume=False")
    try:
        loaded, configuration = tensors.read(path, KEY)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or foreign: start again with resume=False") from error
    if configuration != config:
        changed = [name for name in config if configuration.get(name) != config[name]]
        raise InputError(f"{path} was made with other {', '.join(changed)}: repeat the arguments")
    return loaded
