"""The tail of an estimator: where the sum of rewards stops, and what values the rest.

The setting of a gradient: a policy on a simulator, from which starts, for how long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.gradients.starts import Starts
from gradlab.networks.mlp import as_critic
from gradlab.systems.system import System


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """A policy on a simulator; where there is entropy, both augmented.

    Attributes:
        starts: the states at which gradients are taken, or from which returns are summed.
        discount: γ in (0, 1].
        horizon: the longest number of steps that is asked about; 0 where none is.
        termination: "ignore" simulates on; "mask" counts nothing past an end.
        seed: of every noise stream.
    """

    simulator: System
    policy: nn.Module
    starts: Starts
    discount: float
    horizon: int = 0
    termination: str = "ignore"
    seed: int = 0


@dataclass(frozen=True)
class Tail:
    """Where the sum stops.

    Attributes:
        horizon: n ≥ 0 model steps before the critic.
        critic: module or function valuing (s_n, a_n), or s_n alone for a V critic; None: no tail.
        discount: γ in (0, 1].
        value: "Q" or "V".
        terminal_action: "attached", or "detached": θ of the tail action is frozen, its state path
            kept.
    """

    horizon: int
    critic: nn.Module | None
    discount: float
    value: Literal["Q", "V"] = "Q"
    terminal_action: Literal["attached", "detached"] = "attached"

    def __post_init__(self) -> None:
        validation.whole("horizon", self.horizon)
        if not 0.0 < validation.number("discount", self.discount, "a number in (0, 1]") <= 1.0:
            raise InputError(f"discount is {self.discount!r}, expected a number in (0, 1]")
        validation.word("value", self.value, ("Q", "V"))
        if self.critic is not None:
            object.__setattr__(self, "critic", as_critic(self.critic))
        validation.word("terminal_action", self.terminal_action, ("attached", "detached"))
