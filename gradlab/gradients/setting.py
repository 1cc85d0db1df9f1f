"""The setting of a gradient: a policy on a simulator, from which starts, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from gradlab.gradients.starts import Starts
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
