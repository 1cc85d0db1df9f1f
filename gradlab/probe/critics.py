"""The critic beside the policy: whether it moves, how far in a step, and the origin of its NaN.

    |∂L/∂φ| before every fourth step of its optimiser,   |Δφ| / |φ| of every eighth

Of all other steps one tensor is tested for numbers that are not finite. The last differentiated
passes are kept until the step is over: their rows name the sample of a NaN.

Leaks: policy updates that reach the prior model.

The model's parameters are those of the modules that the task's prior holds as attributes (a
`LearnedSystem` its ensemble); a function's closure cannot be looked into. A model that is trained
by its own loss in its own optimiser is no leak.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.probe.alarms.catalogue import GradientGrowth
from gradlab.probe.budget import Budget
from gradlab.probe.isolation import rows_text, warn
from gradlab.probe.policy_calls import Hook, passing
from gradlab.probe.update_statistics import Numbers, UpdateStatistics, finite

if TYPE_CHECKING:
    from gradlab.tasks import Task


_KEPT = 4  # passes
LOOK, STRIDE = 4, 2  # steps to one that is measured; of these, to one whose length is
_ALTERNATE = 50  # steps in a row that are others' turn
_PAIRED, _APART, _LINE = 16, 0.1, 1e-3  # rows; shares of a range that are a fall, and rounding
_YOUNG = 2  # stretches of a critic that has learnt nothing yet


def parameters_of(optimizer: Any, policy: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimiser steps beside the policy's."""
    of_policy = {id(p) for p in policy.parameters()}
    return [
        p for group in optimizer.param_groups for p in group["params"] if id(p) not in of_policy
    ]


def rate_of(optimizer: Any, parameters: Sequence[nn.Parameter]) -> float:
    """The largest learning rate of these parameters, NaN where it steps none of them."""
    held = {id(p) for p in parameters}
    rates = [
        float(group["lr"])
        for group in ([] if optimizer is None else optimizer.param_groups)
        if "lr" in group and any(id(p) in held for p in group["params"])
    ]
    return max(rates, default=np.nan)


def pushed(parameters: Iterable[Tensor]) -> bool:
    """Whether a gradient is there that is not 0; of an accelerator, which would have to be waited
    for, whether there is one."""
    gradients = (p.grad for p in parameters if p.grad is not None)
    return any(g.layout is not torch.strided or not g.is_cpu or bool(g.any()) for g in gradients)


def by_row(values: Tensor, rows: int) -> Tensor | None:
    """[rows, K], whichever axis the batch is: ensembles in one module give [n, B]. None: two axes
    may be it, or none."""
    if values.numel() == rows:
        return values.reshape(rows, 1)
    at = [k for k, size in enumerate(values.shape) if size == rows]
    return values.movedim(at[0], 0).reshape(rows, -1) if len(at) == 1 else None


def pairwise(values: Tensor, gradient: Tensor, target: Tensor) -> bool | None:
    """Whether a loss compares values, [B, 1], with the targets, [B], of all rows: its gradient by
    row then rises with the value, whatever the row's own target is. None: that cannot be seen."""
    order = values.argsort()
    V, y, g = (x.detach()[order.to(x.device)].double().cpu() for x in (values, target, gradient))
    if len(g) < _PAIRED or not all(bool(x.isfinite().all()) for x in (V, y, g)):
        return None
    flat = float(g.max() - g.min()) < _LINE * float(g.abs().max())  # of one number: rounding
    if flat or 2 * len(set(g.tolist())) < len(g) or not _drop(V - y) > _APART:
        return None  # rows are clipped alike; V − y rises with V by itself
    return _drop(g) < _LINE


def _drop(rising: Tensor) -> float:
    """The largest fall below what came before, of the whole range."""
    return float((rising.cummax(0).values - rising).max() / (rising.max() - rising.min()))


@final
class Turns:
    """Whose turn a step is of an optimiser that holds others' tensors, too.

    A step after which only the others had a gradient is none of one's own; more than `_ALTERNATE`
    in a row are, and its gradient is 0.
    """

    def __init__(self, mine: Iterable[nn.Parameter], optimizer: Any) -> None:
        self._mine = list(mine)
        ids = {id(p) for p in self._mine}
        groups = [] if optimizer is None else optimizer.param_groups
        self._others = [p for group in groups for p in group["params"] if id(p) not in ids]
        self._passed = 0
        self._told: bool | None = None  # before the step

    def now(self) -> bool:
        """By the gradients of the step that is about to be made, which are those after it, too."""
        self._told = self.mine()
        return self._told

    @property
    def known(self) -> bool:
        """What was told before the step, or is found now."""
        return self.mine() if self._told is None else self._told

    def mine(self) -> bool:
        """By the gradients that are there."""
        if not self._others or pushed(self._mine) or self._passed >= _ALTERNATE:
            return True
        sizes = [float(p.grad.sum()) for p in self._others if p.grad is not None]
        # A lost gradient of the others clips the own one to 0: nobody knows whose turn it is.
        return not pushed(self._others) or not all(map(isfinite, sizes))

    def over(self) -> bool:
        """The step is made; whose turn it was."""
        if not self._others:
            return True
        mine, self._told = self.known, None
        self._passed = 0 if mine and pushed(self._mine) else self._passed + 1
        return mine


@final
class LastPasses:
    """The last passes of a critic, or of what else a loss comes through."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        # Inputs and output of the last passes: one update may make several.
        self._made: deque[tuple[tuple[Tensor, ...], Tensor]] = deque(maxlen=_KEPT)
        self.hook = Hook(self._see, partial(warn, "names no sample of a lost gradient"))

    def _see(self, module: nn.Module, args: Any, output: Any) -> None:
        begun = self.budget.clock()
        for answer in output if isinstance(output, tuple | list) else (output,):
            if isinstance(answer, Tensor) and answer.requires_grad:
                if not passing(answer):
                    answer.retain_grad()  # a third of what a hook of ours takes
                    self._made.append((tuple([x for x in args if isinstance(x, Tensor)]), answer))
                break
        self.budget.guard(begun)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Of the last pass."""
        return self._made[-1][0] if self._made else ()

    @property
    def arrived(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """First input, output and the gradient that was sent back to it, of passes with one."""
        return [(x[0], y, y.grad) for x, y in self._made if x and y.grad is not None]

    def release(self, waiting: bool = False) -> None:
        """Let go of the last passes, but for those that are `waiting` for a loss's gradient."""
        kept = [each for each in self._made if waiting and each[1].grad is None]
        self._made.clear()
        self._made.extend(kept)

    @property
    def rows(self) -> int:
        """Rows of the pass to which the loss sent back fewest that are not finite, of these."""
        return min((int(bad.reshape(len(bad), -1).any(1).sum()) for bad in self._bad), default=0)

    @property
    def _bad(self) -> list[Tensor]:
        """Where the gradient of an output is not finite, of the passes that have such."""
        arrived = [
            (by_row(y.grad, len(x[0])) if x and x[0].ndim else None, y.grad)
            for x, y in self._made if y.grad is not None and y.grad.ndim
        ]  # fmt: skip
        found = [~torch.isfinite(grad if rows is None else rows) for rows, grad in arrived]
        return [each for each in found if bool(each.any())]

    def lost(self) -> str:
        """Rows of the last passes that were not finite, in words; "" where none was heard."""
        if not self._made:
            return ""
        for inputs, _ in self._made:
            for each in inputs:
                if not bool(torch.isfinite(each).all()):
                    return f"its input is not finite in {rows_text(~torch.isfinite(each))}"
        if bad := self._bad:
            fewest = min(bad, key=lambda each: int(each.sum()))
            nan = any(bool(torch.isnan(a.grad).any()) for _, a in self._made if a.grad is not None)
            what = "NaN" if nan else "infinite"
            sent = f"the gradient of its loss is {what} in {rows_text(fewest)}"
            if 2 * self.rows < len(fewest):
                return f"{sent}: look at their rewards and targets"
            return (
                f"{sent}: look for a root, norm or power at 0 in the loss, and for a reward or "
                f"target that spoils a mean over all rows"
            )
        return "its inputs and the gradient of its loss are finite: its own weights are too large"


@final
class Critic:
    """The steps of a critic's optimiser since the last row.

    Args:
        shared: the policy's optimiser steps it, too.
    """

    def __init__(
        self, optimizer: Any, parameters: Sequence[nn.Parameter], shared: bool, budget: Budget
    ) -> None:
        self.optimizer, self.parameters, self.shared = optimizer, list(parameters), shared
        self.turns = Turns(self.parameters, optimizer if shared else None)
        self.passes, self.growth = (
            LastPasses(budget),
            GradientGrowth("exploding critic", _YOUNG),
        )
        self.steps = 0
        self._statistics, self._looks = UpdateStatistics(self.parameters), 0
        self._open: Numbers | None = None

    def see(self, due: bool) -> bool:
        """Whether the gradient is finite; True on an accelerator, where it is not tested.

        Args:
            due: whether there is time to measure it.
        """
        size = self._statistics.pulse()
        self.growth.add(size)
        if not (due and self.steps % LOOK == 0) and isfinite(size):
            return True
        self._open = self._statistics.gradient()
        return finite(self._open)

    def before_step(self) -> None:
        """Keep φ, where the step is one to measure."""
        if self._open is not None and self._looks % STRIDE == 0:
            self._statistics.thaw()  # a critic is often frozen while the policy steps
            self._statistics.before_step()

    def after_step(self) -> None:
        """One more step, measured where its gradient was; the policy's turn is none."""
        if not self.turns.over():
            return
        self.steps += 1
        if self._open is not None:
            self._statistics.after_step()
            self._statistics.add(self._open, False)
            self._looks += 1
        self._open = None
        self.passes.release()

    def row(self) -> dict[str, Any]:
        """Columns "critic_…"; begins the next window."""
        columns, steps = self._statistics.row(), self.steps
        self.steps = 0
        still = columns["still"][np.isfinite(columns["still"])]
        return {
            "critic_steps": steps,
            "critic_looked": columns["looked"],
            "critic_stepped": columns["stepped"],
            "critic_still": still.min(initial=columns["stepped"]),
            "critic_norm": columns["grad_norm"],
            "critic_ratio": columns["update_ratio"],
            "critic_rate": rate_of(self.optimizer, self.parameters),
        }


_DEPTH = 3  # systems inside systems
# States, Jacobians and tail of what is measured on a task.
_MODELLED = (
    "model = states and Jacobians of the prior, mixed = the simulator's states, its Jacobians"
)
_SIMULATED = "true_dynamics = both the simulator's, data = the critic alone; tail: the critic"


@final
class ModelGradients:
    """Counts the marked backward passes that leave gradients where the policy's optimiser steps."""

    def __init__(self, policy: nn.Module, optimizer: Any, task: Task | None) -> None:
        model = [] if task is None or task.prior is None else [*_parameters(task.prior, _DEPTH)]
        storages = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        shared = {id(p) for p in model if p.untyped_storage().data_ptr() in storages}
        groups = [] if optimizer is None else optimizer.param_groups
        stepped = {id(p) for group in groups for p in group["params"]}
        self.shared = len(shared)
        self.watched = [p for p in model if id(p) in stepped and id(p) not in shared]
        self.reaches = _path(policy, stepped, self.shared, len(self.watched), task)
        self.count = 0
        self._before: list[tuple[int, int]] = []

    def before(self) -> None:
        if self.watched:
            self._before = self._state()

    def after(self) -> None:
        if self.watched and self._state() != self._before:
            self.count += 1

    def row(self) -> dict[str, Any]:
        """Counts since the last row, and once the computational path in words."""
        counts = {"model_gradients": self.count, "model_shared": self.shared}
        words, self.count, self.reaches = self.reaches, 0, ""
        return counts | {"reaches": words}

    def _state(self) -> list[tuple[int, int]]:
        """Which tensor each gradient is and how often it was written to."""
        return [(0, 0) if p.grad is None else (id(p.grad), p.grad._version) for p in self.watched]


def _path(policy: nn.Module, stepped: set[int], shared: int, model: int, task: Task | None) -> str:
    """The tensors that updates move, and which states, Jacobians, actions and tail are measured."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    moved = len(trained) if not stepped else sum(id(p) in stepped for p in trained)
    others = len(stepped - {id(p) for p in trained})
    text = f"updates move {moved} of {len([*policy.parameters()])} tensors of the policy"
    text += f" and {others} others" if others else ""
    if task is None:
        return f"{text}; no task, so nothing is known of a model"
    if task.prior is None:
        return f"{text}; the task has no model; measured: θ in the first action, {_SIMULATED}"
    apart = "apart" if not shared + model else f"{shared} tensors shared, {model} stepped with θ"
    return (
        f"{text}; prior model: {apart}; measured: θ in the first action, {_MODELLED}, {_SIMULATED}"
    )


def _parameters(holder: object, depth: int) -> Iterator[nn.Parameter]:
    if isinstance(holder, nn.Module):
        yield from holder.parameters()
        return
    if depth:
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            yield from _parameters(value, depth - 1)
