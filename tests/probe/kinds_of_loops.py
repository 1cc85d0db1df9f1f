"""Loops of many kinds, and how many updates of each count."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

UPDATES = 120
Mark = Callable[..., AbstractContextManager[None]]
Loop = Callable[[nn.Module, torch.optim.Optimizer, Mark], None]


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Tanh())


def unmarked(step: int, scaler: object = None) -> AbstractContextManager[None]:
    return nullcontext()


def loss_of(policy: nn.Module) -> Tensor:
    return ((policy(torch.randn(8, 2)) - 0.5) ** 2).sum()


def plain(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        with mark(step):
            loss_of(policy).backward()
        optimizer.step()


def kept_gradients(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad(set_to_none=False)
        with mark(step):
            loss_of(policy).backward()
        optimizer.step()


def accumulated(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        for _ in range(3):
            with mark(step):
                (loss_of(policy) / 3).backward()
        optimizer.step()


def twice_through(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        loss = loss_of(policy)
        with mark(step):
            loss.backward(retain_graph=True)
            loss.backward()
        optimizer.step()


def double_backward(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    """A penalty on the gradient's own norm."""
    for step in range(UPDATES):
        optimizer.zero_grad()
        found = torch.autograd.grad(loss_of(policy), [*policy.parameters()], create_graph=True)
        with mark(step):
            sum((g**2).sum() for g in found).backward()  # type: ignore[union-attr]
        optimizer.step()


def graph_of_gradients(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    """`.grad` has a graph itself."""
    for step in range(UPDATES):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mark(step):
                loss_of(policy).backward(create_graph=True)
        optimizer.step()


def with_closure(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):

        def closure(step: int = step) -> float:
            optimizer.zero_grad()
            loss = loss_of(policy)
            with mark(step):
                loss.backward()
            return float(loss.detach())

        optimizer.step(closure)


def bfloat(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(policy)
        with mark(step):
            loss.backward()
        optimizer.step()


def scaled(unscale: bool, inside: bool, overflows: bool) -> Loop:
    def loop(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=30)
        for step in range(UPDATES):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = loss_of(policy)
            if overflows and step % 7 == 3:
                loss = loss * torch.inf
            with mark(step, scaler):
                scaler.scale(loss).backward()
                if inside:
                    scaler.unscale_(optimizer)
            if unscale:
                if not inside:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(policy.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()

    return loop


def whole_step_compiled(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    @torch.compile(backend="eager")
    def update(x: Tensor) -> None:
        optimizer.zero_grad()
        ((policy(x) - 0.5) ** 2).sum().backward()
        optimizer.step()

    for _ in range(UPDATES):
        update(torch.randn(8, 2))


def caught_errors(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    """Every third backward pass fails, and the loop goes on to the next."""
    for step in range(UPDATES):
        optimizer.zero_grad()
        try:
            with mark(step):
                loss = loss_of(policy)
                if step % 3 == 0:
                    loss.register_hook(_refuse)
                loss.backward()
        except ZeroDivisionError:
            continue
        optimizer.step()


def _refuse(gradient: Tensor) -> Tensor:
    raise ZeroDivisionError("the user's")


def nested(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        with mark(step), mark(step):
            loss_of(policy).backward()
        optimizer.step()


def acting_thread(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    """Another thread asks the policy meanwhile."""
    over = threading.Event()

    def act() -> None:
        with torch.no_grad():
            while not over.is_set():
                policy(torch.zeros(4, 2))

    thread = threading.Thread(target=act)
    thread.start()
    try:
        plain(policy, optimizer, mark)
    finally:
        over.set()
        thread.join()


def copied_meanwhile(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        with mark(step):
            loss_of(policy).backward()
        optimizer.step()
        if step % 40 == 0:
            pickle.loads(pickle.dumps(policy)), copy.deepcopy((policy, optimizer))
            file = io.BytesIO()
            torch.save((policy, optimizer.state_dict()), file)
            file.seek(0)
            torch.load(file, weights_only=False)
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


LOOPS: dict[str, tuple[Loop, int]] = {
    "plain": (plain, UPDATES),
    "zero_grad without None": (kept_gradients, UPDATES),
    "accumulated": (accumulated, UPDATES),
    "retain_graph": (twice_through, UPDATES),
    "double backward": (double_backward, UPDATES),
    "create_graph": (graph_of_gradients, UPDATES),
    "closure": (with_closure, UPDATES),
    "bfloat16": (bfloat, UPDATES),
    "scaler": (scaled(False, False, False), UPDATES),
    "scaler, unscaled to clip": (scaled(True, False, False), UPDATES),
    "scaler, unscaled inside": (scaled(True, True, False), UPDATES),
    "scaler, steps skipped": (scaled(True, False, True), UPDATES - len(range(3, UPDATES, 7))),
    "compiled step": (whole_step_compiled, UPDATES),
    "errors in between": (caught_errors, UPDATES - UPDATES // 3),
    "nested marks": (nested, UPDATES),
    "an acting thread": (acting_thread, UPDATES),
    "copies meanwhile": (copied_meanwhile, UPDATES),
}
