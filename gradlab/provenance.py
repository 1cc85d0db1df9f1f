"""Provenance of a number: versions, commit, threads, and a short hash of a network."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from gradlab.machine import version
from gradlab.networks.mlp import FunctionCritic

_REPORTED = ("torch", "numpy", "scipy", "mujoco", "gymnasium", "h5py")


def environment(begun: float | None = None) -> dict[str, str]:
    """Versions, commit, time and threads of this process, as text; of work in float64 that began
    at this time of `time.monotonic`, its precision and seconds, too."""
    versions = {name: version(name) for name in _REPORTED}
    work = {} if begun is None else {
        "precision": "float64", "wall_seconds": f"{time.monotonic() - begun:.1f}",
    }  # fmt: skip
    return {
        "gradlab": version(),
        "commit": commit(),
        "python": platform.python_version(),
        **versions,
        "threads": str(torch.get_num_threads()),
        "machine": f"{platform.system()} {platform.machine()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    } | work


@cache
def commit() -> str:
    """Commit of gradlab's checkout at the first call, "+changes" where it has any; "unknown"
    outside of one."""
    package = Path(__file__).parent
    try:
        head = _git(package, "rev-parse", "--short=12", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}+changes" if changed else head


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def tensors_hash(*tensors: Tensor) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the values, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def network_hash(network: nn.Module) -> str:
    """First 12 hexadecimal digits of the SHA-256 of all parameters and buffers, in order; of a
    critic that is a function, of its name and code."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        if tensor.is_meta:
            continue
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if isinstance(network, FunctionCritic):
        digest.update(getattr(network.function, "__qualname__", "").encode())
        digest.update(getattr(getattr(network.function, "__code__", None), "co_code", b""))
    return digest.hexdigest()[:12]
