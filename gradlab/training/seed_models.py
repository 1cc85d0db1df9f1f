"""One step of every seed's ensemble at once, and slopes of all transitions of a batch.

    s', r = μ_k(s, a) + σ_k(s, a) ξ,       k drawn anew in every step

N rows of a seed are dealt to its M members by the rank of a column of noise, N/M each: one product
over [E·M, N/M] per layer, by the law of `systems.learned`. With two models (DDPPO) the second is
dealt by a column of its own. `TrueSteps` and `TrueStates` put the simulator in a model's place,
with its own derivatives or the model's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.networks.gaussian_ensemble import Numbers, Prediction, predict
from gradlab.systems.function import AliveFunction, survivors
from gradlab.systems.system import System, Transition, whole

# Numbers that every member has of its own, beside its layers.
_MEMBERS = ("input_mean", "input_std", "target_mean", "target_std", "low", "high")


class Model(Protocol):
    """What a rollout needs: every `System` is one."""

    @property
    def noise_dim(self) -> int: ...

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition: ...


@dataclass(frozen=True, eq=False)
class SeedModels:
    """See above. States are [E · N, ds], seed after seed; noise is [E · N, out + 1].

    Attributes:
        numbers: of E · M members, those of a seed side by side.
        seeds: E.
        alive: the task's termination, or None.
    """

    numbers: Numbers
    seeds: int
    alive: AliveFunction | None = None
    deals: ClassVar[int] = 1

    @property
    def noise_dim(self) -> int:
        return self.numbers.target_mean.shape[2] + 1

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        assert noise is not None  # whose last column deals the members
        predicted = dealt(self.numbers, self.seeds, torch.cat([state, action], dim=1), noise[:, -1])
        outputs = predicted.mean + predicted.std * noise[:, :-1]
        after = outputs[:, : state.shape[1]]
        return Transition(after, outputs[:, -1], survivors(self.alive, after))

    @property
    def members(self) -> int:
        """M."""
        return self.numbers.low.shape[0] // self.seeds

    def step_by_member(
        self, state: Tensor, action: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step by a chosen member each, where a seed has N rows for every one of its members.

        Args:
            state: [E, M · N, ds], member after member; action: [E, M · N, da].
            noise: ξ [E, N, out], which the members share.

        Returns:
            Next state [E, M · N, ds], reward [E, M · N], alive [E, M · N] as 0 or 1.
        """
        x = torch.cat([state, action], dim=2)
        predicted = predict(self.numbers, x.view(len(self.numbers.low), -1, x.shape[2]))
        outputs = predicted.mean + predicted.std * noise.repeat_interleave(self.members, dim=0)
        outputs = outputs.reshape(*x.shape[:2], -1)
        after, reward = outputs[..., : state.shape[2]], outputs[..., -1]
        alive = survivors(self.alive, after.flatten(0, 1)).view(reward.shape)
        return after, reward, alive.to(reward)


@dataclass(frozen=True, eq=False)
class SeedTwoModels:
    """States and rewards of one ensemble, Jacobians of another at its mean; noise [E · N, out + 2].

    Attributes:
        prediction: whose states; gradient: whose Jacobians.
    """

    prediction: SeedModels
    gradient: SeedModels
    deals: ClassVar[int] = 2

    @property
    def noise_dim(self) -> int:
        return self.prediction.noise_dim + 1

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        assert noise is not None
        with torch.no_grad():
            step = self.prediction.step(state.detach(), action.detach(), noise[:, :-1])
        x, model = torch.cat([state, action], dim=1), self.gradient
        slope = dealt(model.numbers, model.seeds, x, noise[:, -1]).mean
        slope = slope - slope.detach()
        return Transition(
            step.state + slope[:, : state.shape[1]], step.reward + slope[:, -1], step.alive
        )


@dataclass(frozen=True, eq=False)
class _GivenEnsemble:
    """A system whose last column of noise chooses its member, for noise that is all normal."""

    system: System
    deals: ClassVar[int] = 1

    @property
    def noise_dim(self) -> int:
        return self.system.noise_dim

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        if noise is not None:  # Φ of a normal number is uniform
            noise = torch.cat([noise[:, :-1], torch.special.ndtr(noise[:, -1:])], dim=1)
        return self.system.step(state, action, noise)


def of_prior(prior: System | None) -> Model | None:
    """The task's model, for noise that is all normal."""
    chosen = getattr(prior, "member_column", None) is not None
    return _GivenEnsemble(prior) if prior is not None and chosen else prior


def ensemble_of(model: Model | None) -> SeedModels:
    """The ensemble that makes a learned model's states."""
    prediction = model.prediction if isinstance(model, SeedTwoModels) else model
    assert isinstance(prediction, SeedModels)  # rows without a learned model are refused
    return prediction


def model_step(
    model: Model, state: Tensor, action: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of every member: next state [E, N, ds], reward [E, N], alive [E, N] as 0 or 1."""
    shape = state.shape[:2]
    after = model.step(
        state.flatten(0, 1), action.flatten(0, 1), None if noise is None else noise.flatten(0, 1)
    )
    return (
        after.state.view(state.shape),
        after.reward.view(shape),
        after.alive.view(shape).to(after.reward),
    )


def slope_along(
    model: Model, batch: Batch, action: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Recorded next states [E, N, ds] and rewards [E, N] with the derivatives of the model's mean.

    The transition's own noise is inferred as what the mean leaves over (RP-PGM eq. 4.5; SVG).

    Args:
        action: equal to the batch's, with a gradient; noise: deals the members of ensembles, and is
            not drawn from otherwise.
    """
    after, reward, _ = model_step(model, batch.state, action, _at_mean(model, noise))
    return batch.next_state + after - after.detach(), batch.reward + reward - reward.detach()


def of_seed(model: Model | None, member: int, seeds: int) -> Model | None:
    """The ensembles that one of the seeds has learned; a prior is everybody's."""
    if isinstance(model, SeedTwoModels):
        parts = [of_seed(getattr(model, field.name), member, seeds) for field in fields(model)]
        return SeedTwoModels(*parts)  # type: ignore[arg-type]
    if not isinstance(model, SeedModels):
        return model
    numbers, count = model.numbers, model.numbers.low.shape[0] // seeds
    kept = torch.arange(member * count, (member + 1) * count).tolist()
    changed = {name: getattr(numbers, name)[kept] for name in _MEMBERS}
    numbers = replace(numbers, layers=numbers.layers.of(kept), **changed)
    return replace(model, numbers=numbers, seeds=1)


def in_dtype(model: Model, like: Tensor) -> Model:
    """Ensembles in the dtype and on the device of `like`; a system follows its inputs."""
    if isinstance(model, SeedTwoModels):
        parts = [in_dtype(getattr(model, field.name), like) for field in fields(model)]
        return SeedTwoModels(*parts)  # type: ignore[arg-type]
    if not isinstance(model, SeedModels):
        return model
    changed = {name: getattr(model.numbers, name).to(like) for name in (*_MEMBERS, "residual")}
    numbers = replace(model.numbers, layers=model.numbers.layers.like(like), **changed)
    return replace(model, numbers=numbers)


def deals(model: Model) -> int:
    """How many of the last columns of a model's noise deal its members to the rows."""
    return getattr(model, "deals", 0)


def _at_mean(model: Model, noise: Tensor | None) -> Tensor | None:
    """The noise at which a model is at its mean, its members dealt to the rows as by `noise`."""
    if noise is None:
        return None
    return _dealing_alone(model, noise[..., noise.shape[-1] - deals(model) :])


def _dealing_alone(model: Model, columns: Tensor) -> Tensor | None:
    """The noise at which a model is at its mean, its members dealt by these columns."""
    if columns.shape[-1] == 0:
        return None
    width = model.noise_dim - columns.shape[-1]
    return torch.cat([columns.new_zeros(*columns.shape[:-1], width), columns], dim=-1)


def dealt(numbers: Numbers, seeds: int, x: Tensor, rank: Tensor) -> Prediction:
    """μ and σ [E · N, out] of every row by the member that its rank among its seed's rows gives.

    Args:
        x: [E · N, ds + da]; rank: [E · N], any numbers without ties.
    """
    members, width = numbers.low.shape[0] // seeds, x.shape[1]
    x, order = x.view(seeds, -1, width), rank.view(seeds, -1).argsort(dim=1)
    n = x.shape[1]
    spare = -n % members  # rows that fill up the last deal
    x = x.gather(1, order[..., None].expand(-1, -1, width))
    x = torch.nn.functional.pad(x, (0, 0, 0, spare))
    hands = x.view(seeds, -1, members, width).transpose(1, 2).flatten(0, 1)
    predicted, back = predict(numbers, hands), order.argsort(dim=1)

    def collected(values: Tensor) -> Tensor:
        outputs = values.shape[2]
        rows = values.view(seeds, members, -1, outputs).transpose(1, 2).flatten(1, 2)
        return rows.gather(1, back[..., None].expand(-1, -1, outputs)).flatten(0, 1)

    return Prediction(collected(predicted.mean), collected(predicted.std))


@torch.no_grad()
def simulator_slopes(simulator: System, batch: Batch) -> Tensor:
    """At the noise with which each transition was made, where the batch has it."""

    def rows(values: Tensor) -> Tensor:
        return values.detach().flatten(0, 1).double().cpu()

    noise = None if batch.dynamics_noise is None else rows(batch.dynamics_noise)
    joint = whole(simulator.linearize(rows(batch.state), rows(batch.action), noise))
    return joint.to(batch.state).view(*batch.state.shape[:2], *joint.shape[1:])


def model_slopes(model: Model, batch: Batch, noise: Tensor | None) -> Tensor:
    """Of the mean of a learned model, or of any system without its noise.

    Args:
        noise: [E, N, ·], deals the members of ensembles to the rows; None: there are none.
    """
    with torch.enable_grad():
        state, action = (x.detach().clone().requires_grad_() for x in (batch.state, batch.action))
        after, reward, _ = model_step(model, state, action, _at_mean(model, noise))
        outputs = torch.cat([after, reward[..., None]], dim=2)
        sweeps = [
            torch.autograd.grad(
                output.sum(), (state, action), retain_graph=True, materialize_grads=True
            )
            for output in outputs.unbind(dim=2)
        ]
    return torch.stack([torch.cat(sweep, dim=2) for sweep in sweeps], dim=2)


@dataclass(frozen=True, eq=False)
class TrueSteps:
    """See above.

    Attributes:
        spare: further columns of noise, which it leaves alone: with as many as `TrueStates` has,
            both make the same states.
    """

    simulator: System
    spare: int = 0

    @property
    def noise_dim(self) -> int:
        return self.simulator.noise_dim + self.spare

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        noise = None if noise is None else noise[:, : self.simulator.noise_dim]
        if self.simulator.differentiable:
            return self.simulator.step(state, action, noise)
        s, a = state.detach(), action.detach()
        after, slope = self.simulator.step(s, a, noise), self.simulator.linearize(s, a, noise)
        ds, da = state - s, action - a
        moved = torch.einsum("nij,nj->ni", slope.A, ds) + torch.einsum("nij,nj->ni", slope.B, da)
        gained = (slope.r_s * ds).sum(dim=1) + (slope.r_a * da).sum(dim=1)
        return Transition(after.state + moved, after.reward + gained, after.alive)


@dataclass(frozen=True, eq=False)
class TrueStates:
    """See above. The simulator's noise comes first, then what deals the model's members."""

    simulator: System
    model: Model

    @property
    def deals(self) -> int:
        """As of `seed_models.deals`."""
        return deals(self.model)

    @property
    def noise_dim(self) -> int:
        return self.simulator.noise_dim + self.deals

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        true = dealing = None
        if noise is not None:
            width = self.simulator.noise_dim
            true, dealing = noise[:, :width], _dealing_alone(self.model, noise[:, width:])
        with torch.no_grad():
            after = self.simulator.step(state.detach(), action.detach(), true)
        guess = self.model.step(state, action, dealing)
        return Transition(
            after.state + guess.state - guess.state.detach(),
            after.reward + guess.reward - guess.reward.detach(),
            after.alive,
        )
