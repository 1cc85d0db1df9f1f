"""Lines through θ against returns and gradients in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Tail
from gradlab.measurement.return_slices import (
    ALPHAS,
    REACH,
    Slice,
    random_direction,
    roughness,
    slices,
)
from gradlab.networks.mlp import Policy
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import Transition
from gradlab.tasks import pendulum
from gradlab.truth.lqr import ExactCritic, lqr_gradient, lqr_return

GAMMA, N, STEPS = 0.9, 24, 6
W = torch.tensor([[-0.4, -0.6]], dtype=torch.float64)


def world(noise: float = 0.0) -> LinearQuadratic:
    A = torch.tensor([[1.0, 0.1], [0.2, 0.9]], dtype=torch.float64)
    B = torch.tensor([[0.02], [0.5]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    return LinearQuadratic(A, B, eye, 0.1 * eye[:1, :1], noise * eye)


def linear_policy(weight: Tensor = W) -> nn.Linear:
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = weight.clone()
    return policy


def starts(n: int = N, width: int = 2) -> Tensor:
    return torch.randn(n, width, generator=stream(0, "starts"), dtype=torch.float64)


def sliced(estimator: Estimator, u: Tensor, policy: nn.Module | None = None, **rest) -> Slice:
    return slices(estimator, policy or linear_policy(), starts(), {"u": u}, **rest)["u"]


def returns(estimator: Estimator, u: Tensor, **rest) -> tuple[float, np.ndarray]:
    """Length of the step and mean V at every α."""
    found = sliced(estimator, u, **rest)
    return found.length, found.sums.sum(axis=1) / found.size.sum()


U = torch.tensor([0.6, -0.8], dtype=torch.float64)


def test_of_linear_dynamics_the_first_action_makes_a_parabola_with_known_slope_and_bend() -> None:
    system = world()
    length, V = returns(Estimator(system, system, "first", Tail(STEPS, None, GAMMA)), U)
    S = starts().T @ starts() / N
    slope = length * float(lqr_gradient(system, W, S, GAMMA, "first", STEPS) @ U)
    P = system.Q + W.T @ system.R @ W
    F, last = system.A + system.B @ W, torch.zeros_like(P)
    for _ in range(STEPS - 1):
        last = P + GAMMA * F.T @ last @ F
    bend = -float((system.R + GAMMA * system.B.T @ last @ system.B) * (U @ S @ U)) * length**2
    known = V[10] + slope * ALPHAS + bend * ALPHAS**2
    np.testing.assert_allclose(V, known, rtol=1e-12)
    assert abs(bend) > 1e-3 * abs(V[10])


def test_with_every_action_moved_it_is_the_return_of_the_moved_policy() -> None:
    system = world()
    length, V = returns(Estimator(system, system, "all", Tail(STEPS, None, GAMMA)), U)
    S = starts().T @ starts() / N
    known = [
        float(lqr_return(system, W + alpha * length * U[None], S, GAMMA, STEPS)) for alpha in ALPHAS
    ]
    np.testing.assert_allclose(V, known, rtol=1e-12)


def test_an_exact_critic_ends_every_horizon_at_the_same_line() -> None:
    system, policy = world(), linear_policy()
    exact = ExactCritic(system, W, GAMMA)
    lines = [
        returns(Estimator(system, system, "first", Tail(n, exact, GAMMA)), U)[1] for n in (0, 1, 7)
    ]
    for each in lines[1:]:
        np.testing.assert_allclose(np.diff(each), np.diff(lines[0]), rtol=1e-10)
    still = replace(Tail(3, exact, GAMMA), terminal_action="detached")
    moving = Tail(3, exact, GAMMA)
    ends = [sliced(Estimator(system, system, "all", tail), U, policy) for tail in (moving, still)]
    assert not np.allclose(ends[0].sums, ends[1].sums)
    np.testing.assert_allclose(ends[0].sums[10], ends[1].sums[10])


@pytest.mark.parametrize("actions", ["first", "all"])
@pytest.mark.parametrize("detached", [False, True])
def test_the_slope_at_0_is_that_of_the_estimators_gradient(actions: str, detached: bool) -> None:
    torch.manual_seed(0)
    policy = Policy(2, 1, (8,)).double()
    critic = ExactCritic(world(), W, GAMMA)
    tail = Tail(4, critic, GAMMA, terminal_action="detached" if detached else "attached")
    estimator = Estimator(world(0.1), world(0.1), actions, tail)  # type: ignore[arg-type]
    estimator = replace(estimator, jacobians=estimator.states)
    u = random_direction(policy)
    gradient = estimator.mean_gradient(policy, starts(), seed=3)
    length, V = returns(estimator, u, policy=policy, seed=3)
    near, far = ((V[10 + k] - V[10 - k]) / (2 * ALPHAS[10 + k]) for k in (1, 2))
    assert (4 * near - far) / 3 == pytest.approx(length * float(gradient @ u), rel=1e-3)


class Ending(LinearQuadratic):
    """Every second start's episode ends with its first step."""

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        out = super().step(state, action, noise)
        return replace(out, alive=torch.arange(len(state)) % 2 == 1)


def test_where_an_episode_ends_its_rewards_and_its_tail_do() -> None:
    one = world()
    system = Ending(one.A, one.B, one.Q, one.R, one.noise_covariance)
    estimator = Estimator(system, system, "all", Tail(2, ExactCritic(one, W, GAMMA), GAMMA))
    masked, going_on = (sliced(estimator, U, termination=each) for each in ("mask", "ignore"))
    np.testing.assert_array_equal(masked.sums[:, 1::2], going_on.sums[:, 1::2])
    s, moved = starts()[::2], W + ALPHAS[3] * masked.length * U[None]
    action = s @ moved.T
    reward = -(s**2).sum(dim=1) - 0.1 * action[:, 0] ** 2
    np.testing.assert_allclose(masked.sums[3, ::2], reward)


def test_a_step_of_1_moves_the_actions_by_half_their_size() -> None:
    estimator = Estimator(world(), world(), "first", Tail(1, None, GAMMA))
    found, policy = sliced(estimator, 3 * U), linear_policy()
    before = policy(starts())
    after = linear_policy(W + found.length * U[None])(starts())
    share = (after - before).detach().norm() / before.detach().norm()
    assert float(share) == pytest.approx(REACH)


def test_a_direction_that_hardly_moves_the_actions_is_no_longer_than_theta() -> None:
    policy = linear_policy()
    flat = starts() * torch.tensor([1.0, 1e-9], dtype=torch.float64)
    along = {"u": torch.tensor([0.0, 1.0], dtype=torch.float64)}
    estimator = Estimator(world(), world(), "first", Tail(1, None, GAMMA))
    assert slices(estimator, policy, flat, along)["u"].length == 1.0


def test_changes_are_paired_by_start_and_their_intervals_are_those_of_paired_differences() -> None:
    estimator = Estimator(world(0.01), world(0.01), "first", Tail(STEPS, None, GAMMA))
    found = sliced(estimator, U)
    rows = found.rows()
    assert rows[10] == {"alpha": 0.0, "value": 0.0, "ci_low": 0.0, "ci_high": 0.0, "n": N}
    change = found.sums[15] - found.sums[10]
    assert rows[15]["value"] == pytest.approx(change.mean())
    half = (rows[15]["ci_high"] - rows[15]["ci_low"]) / 2
    assert half == pytest.approx(2.07 * change.std(ddof=1) / np.sqrt(N), rel=0.1)
    unpaired = np.sqrt(2) * 2.07 * found.sums[15].std(ddof=1) / np.sqrt(N)
    assert half < unpaired / 2


def test_roughness_knows_lines_parabolas_and_waves() -> None:
    assert roughness(3 + 7 * ALPHAS) == pytest.approx(0.0, abs=1e-12)
    assert roughness(5 - 2 * ALPHAS**2) == pytest.approx(0.02)
    assert roughness(np.add.outer(ALPHAS**2, 0 * ALPHAS)) == pytest.approx(0.01)
    assert roughness(np.array([1.0, -1.0, 1.0, -1.0])) == pytest.approx(2.0)
    assert np.isnan(roughness(np.ones(5)))


def test_roughness_of_a_slice_comes_with_the_starts_left_out() -> None:
    estimator = Estimator(world(), world(), "first", Tail(STEPS, None, GAMMA))
    found = sliced(estimator, U)
    rough = found.roughness()
    assert rough.value == pytest.approx(roughness(found.sums.mean(axis=1)))
    without = np.delete(found.sums, 4, axis=1).mean(axis=1)
    assert rough.left_out[4] == pytest.approx(roughness(without))


def test_groups_of_starts_stay_together_and_weights_count() -> None:
    estimator = Estimator(world(), world(), "first", Tail(2, None, GAMMA))
    begin = as_starts(starts(), 2)
    heavy = replace(begin, weight=2 * begin.weight, group=begin.group // 2)
    plain, grouped = (
        slices(estimator, linear_policy(), each, {"u": U})["u"] for each in (begin, heavy)
    )
    assert grouped.sums.shape == (len(ALPHAS), N // 2)
    np.testing.assert_allclose(grouped.sums, 2 * plain.sums.reshape(len(ALPHAS), -1, 2).sum(axis=2))


def test_a_random_direction_has_thetas_proportions_and_leaves_frozen_tensors() -> None:
    torch.manual_seed(1)
    policy = Policy(2, 1, (8,)).double()
    first = next(policy.parameters())
    first.data *= 100
    u = random_direction(policy, seed=5)
    parts = torch.split(u, [p.numel() for p in policy.parameters()])
    theta = [float(p.detach().norm()) for p in policy.parameters()]
    assert float(u.norm()) == pytest.approx(1.0)
    for part, size in zip(parts, theta, strict=True):
        assert float(part.norm()) == pytest.approx(size / np.linalg.norm(theta))
    assert not torch.equal(u, random_direction(policy, seed=6))
    first.requires_grad_(False)
    frozen = random_direction(policy, seed=5)
    assert not frozen[: first.numel()].any()


def test_values_do_not_depend_on_what_else_is_sliced() -> None:
    task = pendulum()
    torch.manual_seed(0)
    policy = Policy(2, 1, (8,)).double()
    begin = task.starts(8, stream(0, "starts"))
    estimator = Estimator(task.simulator, task.simulator, "first", Tail(3, None, GAMMA))
    u, v = random_direction(policy, 0), random_direction(policy, 1)
    alone = slices(estimator, policy, begin, {"v": v})
    both = slices(estimator, policy, begin, {"u": u, "v": v})
    np.testing.assert_array_equal(alone["v"].sums, both["v"].sums)


@pytest.mark.parametrize("wrong", [0 * U, U * float("nan")])
def test_a_direction_that_leads_nowhere_is_refused_by_name(wrong: Tensor) -> None:
    estimator = Estimator(world(), world(), "first", Tail(1, None, GAMMA))
    with pytest.raises(InputError, match="direction 'u' has norm"):
        sliced(estimator, wrong)


def test_scores_move_no_action() -> None:
    with pytest.raises(InputError, match="actions is 'score'"):
        sliced(Estimator(world(), None, "score", Tail(1, None, GAMMA)), U)
