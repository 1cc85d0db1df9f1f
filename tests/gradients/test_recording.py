"""Recordings against the simulator, step by step."""

import pytest
import torch
from torch import Tensor

from gradlab import systems
from gradlab.data.noise import stream
from gradlab.data.trajectories import segments
from gradlab.errors import InputError
from gradlab.gradients.rollout import record, rollout
from gradlab.gradients.starts import as_starts
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import Gaussian, GaussianPolicy
from gradlab.systems.system import System
from tests.gradients.worlds import linear


def starts(n: int = 6) -> Tensor:
    return torch.randn(n, 2, generator=stream(0, "test"), dtype=torch.float64)


def falling() -> System:
    """Alive while s < 1; the action is the speed."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return s + a, s[:, 0]

    return systems.from_function(step, 1, 1, alive=lambda s: s[:, 0] < 1)


def test_inferred_noise_replays_what_was_recorded():
    system, policy = linear(), GaussianPolicy(2, 1, (8,), squash=True, limit=0.8).double()
    data = record(system, policy, starts(), horizon=9, seed=3)
    assert len(data) == 54
    epsilon = policy.infer_noise(data.state, data.action)
    xi = system.infer_noise(data.state, data.action, data.next_state)
    again = policy(data.state, epsilon)
    torch.testing.assert_close(again, data.action, rtol=1e-9, atol=1e-9)
    out = system.step(data.state, data.action, xi)
    torch.testing.assert_close(out.state, data.next_state, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.reward, data.reward, rtol=1e-12, atol=1e-12)
    whole = segments(data, 9)
    assert whole.states.shape == (10, 6, 2)
    assert torch.equal(whole.states[0], starts())


def test_a_trajectory_ends_where_it_terminates():
    class Constant(torch.nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return torch.full_like(state, 0.4)

    begin = torch.tensor([[0.0], [0.9], [-9.0]], dtype=torch.float64)
    data = record(falling(), Constant(), begin, horizon=5)
    lengths = torch.bincount(data.trajectory).tolist()
    assert lengths == [3, 1, 5]
    ends = [2, 3, 8]
    assert data.terminated.nonzero()[:, 0].tolist() == ends[:2]
    assert data.truncated.nonzero()[:, 0].tolist() == ends[2:]


def test_a_recording_and_a_measurement_at_one_seed_share_no_noise():
    system, policy = linear(), Gaussian(Policy(2, 1, (8,)).double(), 0.3)
    data = record(system, policy, starts(), horizon=3, seed=0)
    path = rollout(system, policy, as_starts(starts(), 2), 3, seed=0)
    assert torch.equal(segments(data, 3).states[0], path.states[0])
    assert not torch.isclose(segments(data, 3).states[1:], path.states[1:]).any()


def test_wrong_arguments_are_named():
    policy = Policy(2, 1, (8,)).double()
    with pytest.raises(InputError, match="horizon is 0"):
        record(linear(), policy, starts(), 0)
    with pytest.raises(InputError, match="starts has shape"):
        record(linear(), policy, starts()[:, :1], 3)
    with pytest.raises(InputError, match="float64"):
        record(linear(), Policy(2, 1), starts(), 3)
    exploding = linear(1e200)
    with pytest.raises(InputError, match="not finite"):
        record(exploding, policy, starts(), 5)
