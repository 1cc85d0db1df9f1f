"""Work beside a training loop that the loop cannot notice.

Random streams are put back as they were, whatever the user's modules draw in their forward pass;
autocast, inference mode and default devices of the loop do not reach inside. Networks are float64
copies without the loop's hooks, in eval mode: dropout off, statistics of batch norm fixed.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar

import numpy as np
import torch
from torch import nn

# Hooks that make a module what it is, rather than look at it.
_ESSENTIAL = ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
OWN_WORK = ContextVar("OWN_WORK", default=False)  # hooks of the probe do not see it


@contextmanager
def undisturbed() -> Iterator[None]:
    """Streams of torch, CUDA, numpy and python as before; gradients on, autocast off, CPU."""
    ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if ready else []
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.callback(OWN_WORK.reset, OWN_WORK.set(True))
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # the mode slows down every operation
            stack.enter_context(torch.device("cpu"))
        for kind in {"cpu", *(["cuda"] if devices else [])}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def copied(module: nn.Module) -> nn.Module:
    """A copy in eval mode, without hooks and gradients; dtype and device are the original's.

    Raises:
        RuntimeError: the module holds something that cannot be copied.
    """
    twin = copy.deepcopy(unwrapped(module)).eval()
    for each in twin.modules():
        for name in _HOOKS:
            hooks = getattr(each, name)
            for key, hook in list(hooks.items()):
                if not (getattr(type(hook), "__module__", "") or "").startswith(_ESSENTIAL):
                    del hooks[key]
    twin.zero_grad(set_to_none=True)
    return twin


def doubled(module: nn.Module) -> nn.Module:
    """The same in float64 on the CPU."""
    return copied(module).double().cpu()


def warn(what: str, error: Exception) -> None:
    """Warn of a failure without raising, where warnings are errors, too: the loop goes on."""
    with suppress(Exception):
        text = f"gradlab's probe {what}; training goes on ({type(error).__name__}: {error})"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel or DistributedDataParallel."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    original: nn.Module = getattr(module, "_orig_mod", module)
    return original
