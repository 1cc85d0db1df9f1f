"""Memory that the policy's rollouts take at their peak, predicted before the first one.

    bytes(n, h) = c + c′h + n (a + b h),       n rows of every seed, h model steps

is what autograd keeps until the backward pass, and the random numbers that are drawn ahead. Four
small rollouts, whose kept tensors are counted, give the four coefficients, whatever the loss, the
model and the networks are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from gradlab import machine
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.training.draws import Draws
from gradlab.training.state import Run

ROWS = 8  # of a small rollout, for each member of a model: they are dealt evenly
DRAWING = 16  # bytes of a number while it is drawn, in float64, for each seed and then for all

Note = Callable[[str], None]


def nowhere(line: str) -> None:
    """Note nothing."""


def check(run: Run, note: Note) -> None:
    """Note the predicted peak of a run that rolls its policy out.

    Raises:
        InputError: it exceeds what the machine has.
    """
    horizon = max(run.algorithm.horizons)
    if horizon == 0:
        return
    needed, present = predicted(run), present_on(run.learner.device)
    text = f"policy rollouts of {horizon} steps take about {_size(needed)} at their peak"
    if 0 < present < needed:
        raise InputError(
            f"{text}, but the machine has {_size(present)}: lower the horizon, the batch or "
            f"the number of seeds"
        )
    note(text)


def predicted(run: Run) -> float:
    """Bytes at the peak of one update of the policy."""
    horizon, rows = max(run.algorithm.horizons), run.algorithm.batch
    if run.algorithm.loss.paths:
        rows //= horizon
    members = 1 if run.algorithm.model is None else run.algorithm.model.members
    few, many = ROWS * members, 2 * ROWS * members
    low = few, _taken(run, few, 1), _taken(run, many, 1)
    if horizon == 1:
        return _line(*low, rows) + _slopes(run)
    high = few, _taken(run, few, 2), _taken(run, many, 2)
    one, two = _line(*low, rows), _line(*high, rows)
    return one + (two - one) * (horizon - 1) + _slopes(run)


def _slopes(run: Run) -> float:
    """Bytes of ∂(s′, r)/∂(s, a) of a window: as made, in float64, as used, and cut into paths."""
    if not run.algorithm.loss.noises:
        return 0.0
    simulator, learner = run.task.simulator, run.learner
    each = (simulator.state_dim + 1) * (simulator.state_dim + simulator.action_dim)
    size = torch.empty((), dtype=learner.dtype).element_size()
    return float(len(learner.seeds) * run.algorithm.batch * each * (8 + 2 * size))


def present_on(device: torch.device) -> float:
    """Bytes of the device, or of the machine or what it grants this process; 0: not known."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return machine.memory()


def _size(count: float) -> str:
    """Bytes in words."""
    value, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"


def _line(few: int, at_few: float, at_twice: float, rows: int) -> float:
    """A line's value at `rows`, from those at `few` and at twice as many."""
    return at_few + (at_twice - at_few) * (rows - few) / few


def _taken(run: Run, rows: int, steps: int) -> float:
    """Bytes of a rollout of as many rows and steps: kept by autograd, and drawn."""
    learner, terms = run.learner, run.algorithm.terms
    drawn, kept = _Counted(learner.draws), dict[int, torch.UntypedStorage]()
    context = learner.context(0, drawn)  # type: ignore[arg-type]
    if run.dynamics is not None:
        context = replace(context, model=run.dynamics.rollout())

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that nothing else takes its place
        return tensor

    short = [replace(term, horizon=min(term.horizon, steps)) for term in terms]
    batch = _batch(run, rows * steps if run.algorithm.loss.paths else rows)
    weights = np.ones((len(learner.seeds), len(terms)))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = run.algorithm.loss(replace(context, agents=rows), batch, short, weights)
    del loss  # with its graph, which has been counted
    taken = sum(held.nbytes() for place, held in kept.items() if place not in drawn.places)
    return taken + drawn.bytes


def _batch(run: Run, rows: int) -> Batch:
    """The task's starts, and actions of the policy there."""
    learner = run.learner
    generators = learner.draws.generators("memory", 0)
    state = torch.stack([run.task.starts(rows, generator) for generator in generators])
    state = state.to(learner.device, learner.dtype)
    noise = torch.zeros(*state.shape[:2], run.task.simulator.action_dim).to(state)
    with torch.no_grad():
        action, density = learner.explore(state, noise)
    nothing = torch.zeros_like(state[..., 0])
    return Batch(state, action, nothing, state, nothing, density)


@final
class _Counted:
    """Draws of which the bytes are counted, as a run holds them: a block of iterations by name.

    Attributes:
        places: of what was drawn, in memory.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = Draws(draws.seeds, draws.dtype, draws.device, "memory", block=1)
        self.device, self.dtype, self.generators = draws.device, draws.dtype, draws.generators
        self._block, self._numbers, self.places = draws.block, list[int](), set[int]()

    @property
    def bytes(self) -> float:
        """Of all blocks, while the largest is being drawn."""
        held = torch.empty((), dtype=self.dtype).element_size() * sum(self._numbers)
        return held + DRAWING * max(self._numbers, default=0)

    def normal(self, name: str, iteration: int, shape: tuple[int, ...]) -> Tensor:
        drawn = self._draws.normal(name, iteration, shape)
        self._numbers.append(self._block * drawn.numel())
        self.places.add(drawn.untyped_storage().data_ptr())
        return drawn
