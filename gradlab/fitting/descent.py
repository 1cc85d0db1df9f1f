"""The descent of all members at once: epochs over bootstrapped rows, stopped member by member.

Members are independent: the loss is a sum over them, Adam works entry by entry, and every member
has its own initial numbers, bootstrap, order of rows and stopping time. The result of one depends
on its number and the seed alone, not on the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.fitting.losses import Bound, Rows, outputs
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.gaussian_ensemble import GaussianEnsemble

EVALUATED = 1024  # held-out rows at once

CURVES = ("training", "held_out", "squared_error", "seconds")


@final
class Descent:
    """State: networks, their optimiser, each member's best so far, and the curves.

    Attributes:
        best_epoch: [E], 1 is the first; 0 where no epoch was finite.
        stopped: [E] bool; diverged: [E], the epoch in which a member left the finite numbers, or 0.
        curves: name → one [E] per epoch ("seconds": one number, the time up to its end).
    """

    def __init__(
        self,
        ensemble: GaussianEnsemble,
        rows: Rows,
        bounds: tuple[Bound, Bound],
        settings: ModelSettings,
    ) -> None:
        self.ensemble, self.rows, (self.training, self.held_out) = ensemble, rows, bounds
        self.members, self.batch, self.seed = settings.numbers, settings.batch, settings.seed
        self.adam = torch.optim.Adam(
            ensemble.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.sample = self._bootstrapped() if settings.bootstrap else self._everyone()
        count = len(self.members)
        self.epoch = 0
        self.best_loss = torch.full((count,), math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(count, dtype=torch.long)
        self.diverged = torch.zeros(count, dtype=torch.long)
        self.stopped = torch.zeros(count, dtype=torch.bool)
        self.best = {name: value.clone() for name, value in ensemble.state_dict().items()}
        self.curves: dict[str, list[Tensor]] = {name: [] for name in CURVES}

    @property
    def seconds(self) -> float:
        return float(self.curves["seconds"][-1]) if self.epoch else 0.0

    def run_epoch(self) -> None:
        """One pass over every member's rows, in batches."""
        self.ensemble.train()
        order = self._orders()
        sums = torch.zeros(len(self.members), dtype=torch.float64)
        parts = torch.split(order, self.batch, dim=1)
        for turn, at in enumerate(parts):
            loss = self.training.value(self.ensemble, at, self.epoch * len(parts) + turn)
            self.adam.zero_grad()
            torch.autograd.backward(loss.sum())
            self.adam.step()
            sums += loss.detach().double().cpu()
        self.epoch += 1
        self.curves["training"].append(sums / len(parts))

    def judge(self, patience: int | None, seconds: float) -> None:
        """Compare held-out losses, keep the best members, stop those without progress for
        `patience`."""
        loss, square = self.evaluated()
        for name, value in (("held_out", loss), ("squared_error", square)):
            self.curves[name].append(value)
        self.curves["seconds"].append(torch.tensor(seconds, dtype=torch.float64))
        lost = ~torch.isfinite(loss) & ~self.stopped
        self.diverged[lost] = self.epoch
        self.stopped |= lost
        better = (loss < self.best_loss) & ~self.stopped
        self.best_loss[better] = loss[better]
        self.best_epoch[better] = self.epoch
        for name, value in self.ensemble.state_dict().items():
            self.best[name][better] = value[better]
        if patience is not None:
            self.stopped |= self.epoch - self.best_epoch >= patience

    @torch.no_grad()
    def evaluated(self) -> tuple[Tensor, Tensor]:
        """Held-out loss and mean squared standardised error of one step, [E] each, float64."""
        self.ensemble.eval()
        rows, count = self.held_out.rows, len(self.members)
        loss, square = torch.zeros(2, count, dtype=torch.float64)
        for part in torch.split(rows, EVALUATED):
            at, share = part.expand(count, -1), len(part) / len(rows)
            loss += share * self.held_out.value(self.ensemble, at, 0).double().cpu()
            mean, _ = outputs(self.ensemble, self.rows.inputs[at])
            error = (mean - self.rows.targets[at]).square().mean(dim=(1, 2))
            square += share * error.double().cpu()
        return loss, square

    def state(self) -> dict[str, Tensor]:
        """Everything that the next epoch depends on, for `load`."""
        tensors = {f"network.{name}": value for name, value in self.ensemble.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for k, parameter in enumerate(self.adam.param_groups[0]["params"]):
            for key, value in self.adam.state.get(parameter, {}).items():
                tensors[f"adam.{k}.{key}"] = value
        for name in ("best_loss", "best_epoch", "diverged", "stopped"):
            tensors[name] = getattr(self, name)
        for name, curve in self.curves.items():
            tensors[f"curve.{name}"] = torch.stack(curve) if curve else torch.empty(0)
        return tensors | {"epoch": torch.tensor(self.epoch)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            InputError: the numbers belong to another fit.
        """
        try:
            for prefix, target in (("network.", self.ensemble.state_dict()), ("best.", self.best)):
                for name, value in target.items():
                    value.copy_(state[prefix + name])
            for k, parameter in enumerate(self.adam.param_groups[0]["params"]):
                moments = _under(state, f"adam.{k}.")
                self.adam.state[parameter] = {
                    key: value.clone() if key == "step" else value.clone().to(parameter)
                    for key, value in moments.items()
                }
            for name in ("best_loss", "best_epoch", "diverged", "stopped"):
                getattr(self, name).copy_(state[name])
            self.curves = {name: list(state[f"curve.{name}"]) for name in CURVES}
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise InputError(f"saved state is of another fit: {error}") from error

    def _bootstrapped(self) -> Tensor:
        """[E, m], rows drawn with replacement."""
        rows = self.training.rows
        drawn = [
            torch.randint(len(rows), (len(rows),), generator=self._stream(member, "bootstrap"))
            for member in self.members
        ]
        return rows[torch.stack(drawn).to(rows.device)]

    def _everyone(self) -> Tensor:
        return self.training.rows.expand(len(self.members), -1)

    def _orders(self) -> Tensor:
        """[E, m], this epoch's order of every member's rows."""
        count = self.sample.shape[1]
        drawn = [
            torch.randperm(count, generator=self._stream(member, "order", self.epoch))
            for member in self.members
        ]
        return self.sample.gather(1, torch.stack(drawn).to(self.sample.device))

    def _stream(self, member: int, name: str, step: int = 0) -> torch.Generator:
        return stream(child(self.seed, f"member {member}"), name, step)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
