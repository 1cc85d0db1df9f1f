"""What a loop declares of itself, and the checks of it: who moved, what is stored, its own losses.

    networks    compared before and after steps, in the updates that are looked at
    record      steps of the environment, beside rows of the batches that `look` is given
    losses      asked their laws on a batch after updates 20, 200, 2,000, …

Nothing is guessed: what is not declared is skipped, with the line to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError, in_short, one_line
from gradlab.findings import Finding
from gradlab.probe.isolation import OWN_WORK
from gradlab.probe.loop import Loop
from gradlab.probe.moved import Movements
from gradlab.probe.passes import Passes, Watched
from gradlab.probe.stored import Storage
from gradlab.runs.probe.schema import ASKED

_ROWS = 64  # of a batch that losses are asked on
KINDS = ("critic", "actor", "policy", "fit", "gae")
_NONE: Mapping[str, Any] = {}
Networks = nn.Module | Tensor | Sequence[nn.Module] | None


@final
class LoopChecks:
    """The checks of what is declared.

    Args:
        loop: whose updates these are; it files the answers.
    """

    def __init__(self, policy: nn.Module, optimizer: Any, loop: Loop) -> None:
        self.loop, self.optimizer, self.policy = loop, optimizer, policy
        self.roles: dict[str, Any] = {"actor": policy}
        self.optimizers: dict[str, Any] = {} if optimizer is None else {"actor": optimizer}
        self.movements: Movements | None = None
        self.storage: Storage | None = None
        self._losses: dict[str, Callable[..., Any]] = {}
        self._about: dict[str, Any] = {}  # entries of `gradlab.losses.asking.Declared`
        self._called: dict[str, Any] = {}
        self._next = ASKED
        self._handles: list[Any] = []

    def attach(self) -> None:
        """Hear of steps and passes from now on."""
        self.rest()
        # Without an optimiser nothing has an event of its own.
        if self.optimizers:
            self.movements = Movements(self.roles, self.optimizers, on=lambda: self.loop.due)
            self.loop.answers["moved"] = self.movements.findings
            self.loop.begun = self.movements.hear
        critics = self._several("critic")
        self.loop.critics = {
            f"critic {k + 1}" if len(critics) > 1 else "critic": Passes(Watched(each))
            for k, each in enumerate(critics)
        }
        for module, passes in zip(critics, self.loop.critics.values(), strict=True):
            self._handles.append(module.register_forward_hook(passes))

    def rest(self) -> None:
        """Take all hooks away."""
        if self.movements is not None:
            self.movements.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def others(self) -> list[Any]:
        """Optimisers beside the policy's."""
        several = (x if isinstance(x, list | tuple) else [x] for x in self.optimizers.values())
        found = {id(one): one for each in several for one in each}
        return [one for key, one in found.items() if key != id(self.optimizer)]

    def mark(self, role: str) -> None:
        """As `Movements.mark`."""
        if self.movements is not None:
            self.movements.mark(role)

    def networks(
        self, given: Mapping[str, Networks], optimizers: Mapping[str, Any] | None
    ) -> list[Any]:
        """Declare networks by role, and what steps them.

        Returns:
            The optimisers that are new.

        Raises:
            InputError: as of `Movements`; the roles are as before then.
        """
        validation.instance(
            "optimizers", optimizers, (Mapping, type(None)), "a dict of optimisers by role, or None"
        )
        before = self.roles, self.optimizers
        self.roles = self.roles | {role: x for role, x in given.items() if x is not None}
        self.optimizers = self.optimizers | dict(optimizers or {})
        held = {id(p) for p in _parameters(self.optimizer)}
        mine = [p for each in self._several("critic") for p in each.parameters()]
        if "critic" not in self.optimizers and any(id(p) in held for p in mine):
            self.optimizers["critic"] = self.optimizer  # one steps both
        try:
            self.attach()
        except InputError:
            self.roles, self.optimizers = before
            raise
        new = [one for one in self.others if id(one) not in self.loop.roles]
        for role, each in self.optimizers.items():
            for one in each if isinstance(each, list | tuple) else [each]:
                self.loop.roles.setdefault(id(one), role)
        return new

    def losses(
        self, given: Mapping[str, Any], about: Mapping[str, Any], called: Mapping[str, Any] = _NONE
    ) -> None:
        """Declare the loop's losses, functions of a batch, and what is known of them.

        Args:
            called: networks as the losses call them, where these are not those that are stepped.

        Raises:
            InputError: no function, or an entry that `Declared` has not.
        """
        from gradlab.losses.asking import declare

        declare("losses", **about)
        for name, loss in given.items():
            if loss is not None:
                validation.function(name, loss, "a batch")
                self._losses[name] = loss
        self._about |= about
        self._called |= called
        self._link()

    def record(self, env: Any, steps: int, discount: float | None) -> Any:
        """The environment, its steps recorded; raises InputError."""
        if self.storage is not None and self.storage.log is not None:
            self.storage.record(env)  # which refuses a second one
        storage = Storage(steps=steps, discount=1.0 if discount is None else discount)
        storage.value_discount = None if discount is None else discount**steps
        recorded = storage.record(env)
        self.storage = storage
        self.loop.values, storage.ended = self._see_values, partial(self.loop.note, own=False)
        self.loop.answers["stored"] = storage.findings
        self._link()
        return recorded

    def _link(self) -> None:
        """What the losses' declaration says of the values that are stored."""
        if self.storage is not None:
            self.storage.soft = self._about.get("temperature") is not None
            discount = self._about.get("discount")
            if self.storage.value_discount is None and isinstance(discount, float):
                self.storage.value_discount = discount

    def look(self, batch: Any) -> None:
        """A batch of the loop, before its losses."""
        self.loop.batch = batch if isinstance(batch, Mapping) else {}
        self.loop.losses = {
            name: partial(loss, batch) for name, loss in self._losses.items() if name != "gae"
        }
        if not self.loop.due:
            return
        with self.loop.paying():
            self.loop.report_lost_column()
            if self.storage is not None and isinstance(batch, Mapping):
                self.storage.look(self._named(batch))
            if self._losses and self.loop.count >= self._next:
                while self._next <= self.loop.count:
                    self._next *= 10
                self._ask(batch)

    def _see_values(self) -> None:
        """The critics' last values, where they are one for each row, before they are stepped."""
        made = [(each.output, each.batch) for each in self.loop.critics.values()]
        values = [x.detach().flatten() for x, rows in made if x is not None and x.numel() == rows]
        if self.storage is not None and values:
            self.storage.look_at_values({"value": torch.cat(values)})

    def _named(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch by the house's names."""
        theirs = {v: k for k, v in self._about.get("columns", {}).items() if isinstance(v, str)}
        return {theirs.get(name, name): x for name, x in batch.items()}

    def _ask(self, batch: Any) -> None:
        from gradlab.losses.asking import Declared
        from gradlab.losses.laws import look_at

        roles = ("critic", "target", "target_actor", "model")
        networks = {role: self.roles[role] for role in roles if role in self.roles}
        networks |= {"actor": self.loop.passes.watched.module} | self._called
        declared = Declared(**{**networks, **self._about})
        few = batch[:_ROWS] if hasattr(batch, "batch_size") else batch
        if isinstance(batch, dict):
            few = {
                k: x[:_ROWS] if isinstance(x, Tensor) and x.ndim else x for k, x in batch.items()
            }
        for kind, loss in self._losses.items():
            token = OWN_WORK.set(True)
            try:
                found = look_at(loss, None if kind == "gae" else few, declared, kind)
            except Exception as error:  # a loss that cannot be asked
                words = in_short(one_line(f"{type(error).__name__}: {error}"), 120)
                found = (Finding("loss not asked", "undecided", kind, at=words),)
            finally:
                OWN_WORK.reset(token)
            shared = [
                replace(each, subject=f"{kind}'s") if each.code.startswith("loss.") else each
                for each in found
            ]
            self.loop.log.answer(f"{kind}'s loss", shared, self.loop.count, self.loop.step)

    def _several(self, role: str) -> list[nn.Module]:
        held = self.roles.get(role, ())
        several = held if isinstance(held, list | tuple | nn.ModuleList) else [held]
        return [each for each in several if isinstance(each, nn.Module)]


def _parameters(optimizer: Any) -> list[Tensor]:
    groups = [] if optimizer is None else optimizer.param_groups
    return [p for group in groups for p in group["params"]]
