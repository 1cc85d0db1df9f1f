"""The trial of a truth at the length of an update, on worlds whose returns are known to jump."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import measure
from gradlab.gradients.setting import Starts
from gradlab.measurement import jumps
from gradlab.measurement.jumps import find_jumps, truth_at_length
from gradlab.networks.policies import Gaussian
from gradlab.runs.jumps import Jumps
from gradlab.runs.realised import PATHWISE, SCORE, TRUE_CELL
from gradlab.systems import from_function
from gradlab.truth.oracles import perturbed, unroll_all_actions
from gradlab.truth.returns import along, moved
from gradlab.truth.truth import matched_truth
from tests.measurement.jumping_worlds import (
    GAMMA,
    T,
    barrier,
    collision,
    falling_pole,
    pd_policy,
    plane_states,
    point_mass,
    soft_critic,
    task,
)


def found(setting, move=0.04) -> Jumps:
    trial = find_jumps(setting, unroll_all_actions(setting), move)
    assert trial is not None
    return trial


def returns(policy, states, cost=5.0, noise=None) -> torch.Tensor:
    """By a loop of its own."""
    world, total = point_mass(cost), torch.zeros(len(states), dtype=torch.float64)
    for t in range(T):
        with torch.no_grad():
            action = policy(states) + (0.0 if noise is None else noise[t])
            states, reward, _ = world.step(states, action)
        total += GAMMA**t * reward
    return total


@pytest.mark.parametrize(
    ("cost", "edge", "kinds"),
    [
        (5.0, "jump", {"harmful"}),
        (0.05, "jump", {"harmless"}),
        (0.0, "jump", {"smooth"}),
        (5.0, "soft", {"smooth"}),
        (5.0, "kink", {"curved", "smooth"}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_jumps_are_told_from_bends_and_harm_from_none(cost, edge, kinds, seed):
    trial = found(collision(cost, edge, n=64, seed=seed))
    assert trial.kind in kinds and (trial.count > 0) == (edge == "jump" and cost > 0)
    assert trial.tried == 24 and trial.samples == 64 and trial.horizon == T


def test_promised_and_brought_are_slopes_of_returns():
    setting = collision(n=64, std=0.0)
    trial, G = found(setting), unroll_all_actions(setting)
    u = G.mean(dim=0) / G.mean(dim=0).norm()
    assert trial.promised == pytest.approx(float(G.mean(dim=0).norm()))
    for k, eta in enumerate(trial.lengths):
        up, down = (
            returns(perturbed(setting.policy, sign * eta * u), setting.starts.states)
            for sign in (1, -1)
        )
        slope = (up - down) / (2 * eta)
        assert trial.brought[k] == pytest.approx(float(slope.mean()), rel=1e-9)
    smooth = returns(setting.policy, setting.starts.states, cost=0.0)
    tiny = 1e-6 * u
    both = [returns(perturbed(setting.policy, s * tiny), setting.starts.states) for s in (1, -1)]
    # At a tiny step differences agree with the pathwise slope, and both are wrong.
    assert float((both[0] - both[1]).mean() / 2e-6) == pytest.approx(trial.promised, rel=1e-3)
    assert trial.brought[1] < -3 * trial.promised and len(smooth) == 64


class Twice(nn.Module):
    """A linear layer whose weight is used outside of it, too: no layer moves by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2).double()

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return self.layer(state) + 0.1 * nn.functional.linear(state, self.layer.weight**2)


@pytest.mark.parametrize(
    "policy", [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double(), Twice()]
)
def test_policies_on_a_line_act_as_those_that_are_moved(policy):
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(sum(p.numel() for p in policy.parameters()), generator=generator).double()
    lengths, states = torch.linspace(-1, 2, 7).double(), torch.randn(7, 4).double()
    with torch.no_grad():
        found = along(policy, u, lengths)(states, states[:, :0])
        for k, (s, length) in enumerate(zip(states, lengths, strict=True)):
            assert torch.allclose(found[k], perturbed(policy, length * u)(s[None])[0])
        apart = [(None, 2), (0.3 * u, 4), (-u, 1)]
        found, begin = moved(policy, apart)(states, states[:, :0]), 0
        for step, rows in apart:
            own = policy if step is None else perturbed(policy, step)
            here = slice(begin, begin + rows)
            assert torch.allclose(found[here], own(states[here]), rtol=1e-14)
            begin += rows


def test_a_jump_has_its_size_and_its_step():
    """Inside the disc a step costs 5 γᵗ, and paths part where one of them first is."""
    setting = collision(n=64, std=0.0)
    trial, world, states = found(setting), point_mass(), setting.starts.states
    inside = []
    for _ in range(T):
        with torch.no_grad():
            d = (states[:, :2] - torch.tensor([-1.2, 0.2])).norm(dim=1)
            inside.append((d - 0.5).abs())
            states, _, _ = world.step(states, setting.policy(states))
    near = torch.stack(inside)[1:]  # of the places that are paid for
    for start, size, at in zip(trial.starts, trial.sizes, trial.at, strict=True):
        assert size == pytest.approx(5.0 * GAMMA**at, rel=0.05)
        assert float(near[at, start]) < 0.1
    assert trial.step == int(np.median(trial.at))
    assert (trial.states == setting.starts.states.numpy()[trial.starts]).all()


@pytest.mark.filterwarnings("error")
def test_returns_that_explode_have_the_gaps_of_small_ones():
    setting = collision(n=64)

    def large(s: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        after, reward, _ = setting.simulator.step(s, a)
        return after, 1e100 * reward

    exploding = found(replace(setting, simulator=from_function(large, 4, 2)))
    small = found(setting)
    for name in ("gap", "gap_low", "gap_high"):
        np.testing.assert_allclose(getattr(exploding, name), getattr(small, name), rtol=1e-6)


def test_the_end_of_an_episode_is_a_jump_where_it_ends():
    setting = falling_pole()
    trial = found(setting)
    assert trial.kind == "harmful" and trial.count > 10
    # The step that is lost, or won, pays 1.
    assert trial.sizes == pytest.approx(GAMMA ** (trial.at + 0.0), rel=0.2)
    assert found(replace(setting, termination="ignore")).kind in ("smooth", "curved")


def test_a_gradient_that_promises_much_more_than_any_step_brings_is_rough():
    setting = collision(0.0, n=32)
    trial = find_jumps(setting, 10 * unroll_all_actions(setting), 0.04)
    assert trial.kind == "rough" and trial.roughness == pytest.approx(10, rel=0.05)


def test_an_open_gap_says_how_many_starts_would_decide():
    setting = collision(0.08, n=64)
    trial = found(setting)
    assert trial.kind == "open" and 0 < trial.missing < 100 * 64
    assert found(collision(0.0, n=64)).missing == 0


def test_a_return_that_is_lost_is_open_and_never_smooth():
    """The push of .5 a second is moved by 1, 4 and 12% of itself: the place after 10 steps by as
    much of .5, into the wall where there is less room."""
    rooms = torch.cat([torch.tensor([0.01, 0.04, 0.05]), torch.linspace(0.3, 0.5, 29)]).double()
    trial, far = found(barrier(rooms)), found(barrier(rooms[3:]))
    assert far.kind == "smooth" and far.lost == (0, 0, 0) and far.first_lost is None
    assert trial.kind == "open" and trial.lost == (0, 1, 3) and trial.missing == -1
    assert trial.first_lost == (1, pytest.approx(0.04)) and np.isfinite(trial.gap).all()
    assert trial.count == 0 and trial.kind == "open"
    G = unroll_all_actions(barrier(rooms)).mean(dim=0)

    def paid(sign: int) -> torch.Tensor:
        """Of the starts but the first, by a loop of its own."""
        w, b = sign * trial.lengths[1] * G / G.norm()
        place, total = 0.5 - rooms[1:], torch.zeros(len(rooms) - 1, dtype=torch.float64)
        for t in range(10):
            place = place + 0.1 * (0.5 + b + w * place)
            total += GAMMA**t * torch.log(1 - place)
        return total

    slope = (paid(1) - paid(-1)).mean() / (2 * trial.lengths[1])
    assert trial.brought[1] == pytest.approx(float(slope), rel=1e-9)


def test_where_all_returns_are_lost_nothing_is_said_of_slopes():
    trial = found(barrier(torch.full((8,), 0.001).double()))
    assert trial.kind == "open" and trial.lost == (8, 8, 8) and trial.tried == 0
    assert np.isnan(trial.gap).all() and np.isinf(trial.gap_high).all()


def test_weights_count_as_starts_that_are_drawn_more_often():
    setting = collision(n=48, std=0.0)
    states, often = setting.starts.states, torch.arange(48) % 3 + 1
    weight = often.double() / often.double().mean()
    weighted = replace(setting, starts=Starts(states, weight, torch.arange(48)))
    rows = torch.arange(48).repeat_interleave(often)
    copied = replace(setting, starts=Starts(states[rows], torch.ones(len(rows)).double(), rows))
    one, other = found(weighted), found(copied)
    assert one.gap == pytest.approx(other.gap) and one.promised == pytest.approx(other.promised)
    assert one.gap_low == pytest.approx(other.gap_low) and one.kind == other.kind


def test_nothing_is_tried_without_a_direction():
    setting = collision(n=16)
    G = unroll_all_actions(setting)
    assert find_jumps(setting, 0 * G, 0.04) is None
    assert find_jumps(setting, G.index_fill(0, torch.tensor([3]), torch.nan), 0.04) is None


def test_a_stochastic_policy_has_the_score_function_for_its_truth():
    setting = replace(collision(n=64), horizon=2)
    truth = matched_truth(setting, kinds=["all"])
    tried, found_jumps, beside = truth_at_length(setting, truth, 0.04)
    assert truth.status == "converged" and tried.status == "score" and tried.admissible
    assert tried.horizon == truth.horizon and tried.every.relative_se < 0.25
    pathwise = truth.every.gradients.mean(dim=0)
    assert torch.equal(beside[PATHWISE], pathwise) and tried.pathwise is truth.every
    by_score = tried.every.gradients.mean(dim=0) @ pathwise / pathwise.norm()
    assert float(by_score) == pytest.approx(float(found_jumps.brought[1]), rel=0.4)
    assert tried.finding.code == "truth_score"


class WithoutDensity(nn.Module):
    noise_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.inner = pd_policy()

    def forward(self, state, noise):
        return self.inner(state) + 0.3 * noise


@pytest.mark.parametrize(
    ("policy", "code"),
    [(pd_policy(), "truth_without_score"), (WithoutDensity(), "truth_without_density")],
)
def test_without_a_score_there_is_no_truth_and_the_finding_says_what_to_write(policy, code):
    setting = replace(collision(n=32), policy=policy, horizon=2)
    tried, _, beside = truth_at_length(setting, matched_truth(setting, kinds=["all"]), 0.04)
    assert tried.status == "jumps" and not tried.admissible
    assert tried.every is None and SCORE not in beside
    assert tried.finding.code == code and "policy" in tried.reason


def test_an_imprecise_score_is_a_direction_and_no_truth(monkeypatch):
    setting = replace(collision(n=64), horizon=2)
    truth = matched_truth(setting, kinds=["all"])
    lost = torch.randn(64, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    monkeypatch.setattr(jumps, "score_gradients", lambda *_, **__: lost)
    tried, _, beside = truth_at_length(setting, truth, 0.04)
    assert tried.status == "jumps" and tried.finding.value > 0.25
    assert torch.equal(beside[SCORE], lost.mean(dim=0))


def test_where_it_does_no_harm_the_truth_stands():
    setting = replace(collision(0.05, n=64), horizon=2)
    truth = matched_truth(setting, kinds=["all"])
    tried, found_jumps, beside = truth_at_length(setting, truth, 0.04)
    assert tried is truth and found_jumps.kind == "harmless" and not beside


@pytest.fixture(scope="module")
def profile():
    policy = Gaussian(pd_policy(), 0.3)
    return measure(task(), policy, soft_critic, horizon=2, starts=64, rehearse=False)


@pytest.mark.slow
def test_the_critic_helps_and_backpropagation_harms_as_paired_returns_say(profile):
    """Steps of the measured length, along directions made here, from 2,000 starts of their own."""
    found, T_ = profile.realised, profile.truth["horizon"]
    assert profile.truth["status"] == "score" and profile.jumps.kind == "harmful" and T_ > T
    assert found.helps(("data", 0)) and found.judges == 64
    assert found.ends((PATHWISE, 0)).high < 0 < found.ends(TRUE_CELL).low
    generator = torch.Generator().manual_seed(7)
    states = plane_states(2000, generator)
    noise = 0.3 * torch.randn(T, 2000, 2, generator=generator, dtype=torch.float64)
    setting = collision(n=500)
    u = unroll_all_actions(setting).mean(dim=0)
    length = found.lengths[found.at]
    moved = perturbed(pd_policy(), length * u / u.norm())
    change = returns(moved, states, noise=noise) - returns(pd_policy(), states, noise=noise)
    assert float(change.mean()) == pytest.approx(found.change((PATHWISE, 0)).value, rel=0.5)
    assert change.mean() + 5 * change.std() / 2000**0.5 < 0
