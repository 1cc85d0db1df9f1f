"""Trajectories of a policy on a simulator, as they would be recorded from a machine."""

from __future__ import annotations

from torch import Tensor, nn

from gradlab.data import trajectories
from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import as_starts
from gradlab.networks.interface import check_policy
from gradlab.systems.system import System


def record(
    simulator: System, policy: nn.Module, starts: Tensor | Path, horizon: int, seed: int = 0
) -> Trajectories:
    """One trajectory per start, of `horizon` transitions or up to the first terminal state.

    Its noise streams are its own: a gradient measured at the same seed draws other noise.

    Raises:
        InputError: a horizon below 1, starts or a policy that do not fit, or a state that leaves
            the finite numbers.
    """
    if not isinstance(horizon, int) or horizon < 1:
        raise InputError(f"horizon is {horizon!r}, expected an integer ≥ 1")
    begin = as_starts(starts, simulator.state_dim)
    check_policy(policy, begin.states, simulator.action_dim)
    own = stream(seed, "recording").initial_seed()
    return trajectories.from_path(rollout(simulator, policy, begin, horizon, own))
