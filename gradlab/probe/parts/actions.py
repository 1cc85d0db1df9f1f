"""How actions come from a policy's outputs: as they are, squashed, and drawn from a Gaussian.

a = centre + half · tanh(u),   u = μ + σ ε
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.probe.parts.passes import ROWS, Pass
from gradlab.probe.policy_calls import limits_of

_DRAWN = (0.3, 0.7, 1.4)  # |mean| and standard deviations of what passes for standard noise


@dataclass(frozen=True)
class Squash:
    """a = centre + half · tanh(u), or without the tanh; half None: a = u."""

    half: Tensor | None = None
    centre: Tensor | float = 0.0
    bent: bool = True

    def inner(self, action: Tensor) -> Tensor:
        """u; NaN where no u gives the action."""
        if self.half is None:
            return action
        unit = ((action - self.centre) / self.half).double()
        found = torch.atanh(unit.clamp(-1 + 1e-7, 1 - 1e-7))
        return torch.where(unit.abs() > 1 + 1e-6, torch.nan, found).to(action)


@dataclass(frozen=True)
class Action:
    """Actions of a policy at its own states.

    Attributes:
        value: [N, da]; noise: ε of a Gaussian one, None where the action is the output itself.
        log_density: its mean, up to a constant.
    """

    value: Tensor
    squash: Squash = field(default_factory=Squash)
    noise: Tensor | None = None
    log_density: Tensor | None = None

    def again(self, outputs: Sequence[Tensor]) -> Action:
        """With the same noise, by other outputs of the policy."""
        with torch.no_grad():
            if self.noise is not None:
                return gaussian_action(outputs[0], outputs[1], self.noise, self.squash)
            return Action(squashed(outputs[0], self.squash), self.squash)


def action_of(made: Pass, policy: nn.Module, low: Any = None, high: Any = None) -> Action | None:
    """How the critic's action comes from the policy's outputs; None where it is not known.

    Args:
        low, high: of the environment's actions, which a loop may squash to by itself.
    """
    given = made.values[0][1][-1]
    outputs = made.outputs
    width = outputs[0].shape[-1]
    if given.ndim != 2 or given.shape[-1] < width or len(given) != len(outputs[0]):
        return None
    given = given[:ROWS, -width:]
    known = squashes(made, policy, given, low, high)
    with torch.no_grad():
        for squash in [*known, _line(outputs[0][:ROWS], given)]:
            if torch.allclose(squashed(outputs[0][:ROWS], squash), given, atol=1e-6):
                return Action(given, squash)
        if len(outputs) > 1 and outputs[1].shape == outputs[0].shape:
            for squash in reversed(known):
                noise = noise_of(outputs[0][:ROWS], outputs[1][:ROWS], given, squash)
                if noise is not None:
                    return gaussian_action(outputs[0][:ROWS], outputs[1][:ROWS], noise, squash)
    return None


def squashes(
    made: Pass, policy: nn.Module, given: Tensor, low: Any = None, high: Any = None
) -> list[Squash]:
    """What actions [N, da] may be squashed by: nothing, the limits that are known, or ±1."""
    actors = policy, *(call.module for call in made.calls)
    known = next((each for actor in actors if (each := limits_of(actor, None))), None)
    unit = torch.ones_like(given[0])
    found = [Squash(), Squash(unit)]
    if known is not None:
        edge = known.edge.to(given) / (1 - 1e-3)
        found.insert(1, Squash(edge * unit, known.centre.to(given)))
    ends = [torch.as_tensor(x).to(given) for x in (low, high) if x is not None]
    if len(ends) == 2 and all(x.shape == unit.shape and bool(x.isfinite().all()) for x in ends):
        found.insert(1, Squash((ends[1] - ends[0]) / 2, (ends[1] + ends[0]) / 2))
    return found


def squashed(output: Tensor, squash: Squash) -> Tensor:
    if squash.half is None:
        return output
    return squash.centre + squash.half * (torch.tanh(output) if squash.bent else output)


def _line(output: Tensor, action: Tensor) -> Squash:
    """The line that fits best, of every action: where the loop scales outputs by itself."""
    x, y = output - output.mean(0), action - action.mean(0)
    half = (x * y).sum(0) / (x * x).sum(0).clamp_min(1e-12)
    return Squash(half, action.mean(0) - half * output.mean(0), bent=False)


def noise_of(mean: Tensor, log_std: Tensor, action: Tensor, squash: Squash) -> Tensor | None:
    """ε of these actions, None where it does not look like standard noise.

    Where a tanh is flat ε is lost: what is left, of |u| < 4, is drawn from a normal cut at both
    ends, and is taken back to a whole one by its distribution function.
    """
    action = squash.inner(action)
    if bool(action.isnan().any()):
        return None
    noise = (action - mean) / log_std.exp()
    inner = noise.reshape(-1)
    if squash.half is not None:
        scale = log_std.double().exp()
        low, high = (torch.special.ndtr((x - mean.double()) / scale) for x in (-4.0, 4.0))
        share = (torch.special.ndtr(noise.double()) - low) / (high - low)
        inner = torch.special.ndtri(share.clamp(1e-6, 1 - 1e-6))[action.abs() < 4]
    if len(inner) < 16:
        return None
    shift, least, most = _DRAWN
    shift = max(shift, 3 / len(inner) ** 0.5)  # of few samples
    drawn = abs(float(inner.mean())) < shift and least < float(inner.std()) < most
    return noise.clamp(-5, 5) if drawn else None


def gaussian_action(mean: Tensor, log_std: Tensor, noise: Tensor, squash: Squash) -> Action:
    inner = mean + log_std.exp() * noise
    density = -log_std.sum(-1)
    if squash.half is not None:
        density = density - torch.log(squash.half * (1 - torch.tanh(inner) ** 2) + 1e-6).sum(-1)
    return Action(squashed(inner, squash), squash, noise, density.mean())


def opened(made: Pass, old: Action) -> Action:
    """The same actions as those of a Gaussian without a tanh."""
    if old.noise is None:
        return old
    mean, log_std = (x[:ROWS] for x in made.outputs[:2])
    return gaussian_action(mean, log_std, (old.value - mean) / log_std.exp(), Squash())
