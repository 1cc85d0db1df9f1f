"""What is read from inner products, neighbours, residuals and critics, against what is known."""

import numpy as np
import pytest
import torch
from torch import nn

from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.fitting import critics as fitting
from gradlab.networks.policies import Gaussian
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate
from gradlab.tools.logs.arguments import windows
from gradlab.tools.logs.compute import evaluation, measure_logs
from gradlab.tools.logs.diagnostics import (
    LEVEL,
    described,
    directional,
    judged,
    nearest_rows,
    refuse_far,
    residuals,
    return_bound,
)
from gradlab.tools.logs.findings import Number, _status
from gradlab.tools.logs.gradients import Products, agreement, noise_of, pair_products
from gradlab.truth.lqr import ExactCritic
from tests.logs.carts import STD, fallen, linear, noisy, recorded, task

DISCOUNT = task().discount


def planted(G):
    """Products of explicit gradients [N, P], one group each."""
    cells = {name: (name, 1) for name in G}
    pairs = {
        (cells[a], cells[b]): pair_products(G[a], G[b], G[a].sum(dim=0), G[b].sum(dim=0))
        for k, a in enumerate(G)
        for b in list(G)[k:]
    }
    squares = {cells[name]: (x * x).sum(dim=1).numpy() for name, x in G.items()}
    return Products(np.ones(len(next(iter(G.values())))), squares, pairs)


def draws(n, mean, seed, dims=3):
    noise = torch.randn(n, dims, generator=stream(seed, "planted"), dtype=torch.float64)
    return mean + noise


def u_statistic(X):
    """Mean inner product of different rows, by the double sum."""
    n = len(X)
    return float(((X @ X.T).sum() - (X * X).sum()) / (n * (n - 1)))


def test_numbers_are_u_statistics_of_explicit_gradients():
    M, S = draws(30, 0.5, 0), draws(30, 0.2, 1)
    found = planted({"model": M, "score": S})
    told = {e.quantity: e.estimate.value for e in agreement(found, ("model", 1), ("score", 1))}
    bias2, reference = u_statistic(M - S), u_statistic(S)
    assert told["bias2"] == pytest.approx(bias2, rel=1e-10)
    assert told["relative_bias2"] == pytest.approx(bias2 / reference, rel=1e-10)
    assert told["excess"] == pytest.approx(bias2 - 0.25 * reference, rel=1e-10)
    traces = [float(x.var(dim=0).sum()) for x in (M, S)]
    assert told["variance_ratio"] == pytest.approx(traces[0] / traces[1], rel=1e-10)


def test_a_mean_of_noise_says_nothing_of_what_it_estimates():
    norms, cosines = [], []
    for seed in range(100):
        found = {e.quantity: e for e in noise_of(planted({"x": draws(20, 0.0, seed)}), ("x", 1))}
        norms.append(found["mean_norm"].interval)
        cosines.append(found["cosine_self"])
    found = [
        {e.quantity: e for e in noise_of(planted({"x": draws(30, 0.4, seed)}), ("x", 1))}
        for seed in range(100)
    ]
    spans = [each["mean_norm"].interval for each in found]
    assert sum(span.low <= 0.4 * 3**0.5 <= span.high for span in spans) >= 90
    # A norm that is 0: it must be inside, and no interval may shrink to a point there.
    assert sum(each.low == 0.0 for each in norms) >= 92
    assert min(each.high for each in norms) > 0.05
    assert all(each.interval.high > 0 for each in cosines)


def test_a_norm_has_the_ends_of_its_square():
    X = draws(12, 0.0, 3)
    found = {e.quantity: e for e in noise_of(planted({"x": X}), ("x", 1))}
    rows = torch.arange(12)
    left_out = np.array([u_statistic(X[rows != k]) for k in range(12)])
    ends = interval("bias2", Estimate(u_statistic(X), left_out))
    assert u_statistic(X) < 0 and ends.high > 0
    span = found["mean_norm"].interval
    assert (span.low, span.high) == pytest.approx((ends.low**0.5, ends.high**0.5))


@pytest.mark.parametrize(
    ("excess", "bias2", "gap", "known", "status"),
    [
        ((-3, -1), (0, 1), (0, 0.2), True, "agree"),
        ((-3, -1), (0.1, 1), (0, 0.2), True, "agree"),  # known to differ, by less than half
        ((-3, -1), (0, 1), (0, 0.2), False, "undecided"),
        ((-3, -1), (0, 1), (0, 0.3), True, "undecided"),
        ((-3, 1), (0, 9), (0, 9), True, "undecided"),
        ((1, 3), (0.1, 9), (0.3, 9), True, "disagree"),
        ((1, 3), (0.1, 9), (np.nan, np.nan), False, "disagree"),
    ],
)
def test_a_status_is_given_by_the_ends_of_intervals(excess, bias2, gap, known, status):
    def number(ends):
        return Number(float(np.mean(ends)), *ends, n=9, se=1.0)

    assert _status(number(excess), number(bias2), number(gap), known) == status


def test_critics_differ_by_what_their_means_differ():
    one, two, three = draws(2000, 0.5, 0), draws(2000, 0.5, 0) + 0.3, draws(2000, 0.5, 0) - 0.1
    found = planted({"a": one, "b": two, "c": three})
    told = {e.quantity: e for e in noise_of(found, ("a", 1), (("b", 1), ("c", 1)))}
    shifts = np.array([0.0, 0.3, -0.1])
    assert told["variance_critics"].estimate.value == pytest.approx(3 * shifts.var(ddof=1))


def test_the_policy_that_recorded_passes_and_others_do_not():
    data = recorded(300, 12)
    found = residuals(noisy(), data.state, data.action)
    assert found is not None and found.on_policy and not found.far
    wider = residuals(noisy(1.1 * STD), data.state, data.action)
    assert wider is not None and not wider.on_policy and not wider.far
    older = linear()
    with torch.no_grad():
        older.network[0].weight += torch.tensor([[0.03, 0.0]])
    moved = residuals(Gaussian(older, STD), data.state, data.action)
    assert moved is not None and not moved.on_policy and not moved.far
    refuse_far(moved, ("push",))
    far = residuals(noisy(0.1 * STD), data.state, data.action)
    assert far is not None and far.far
    with pytest.raises(InputError, match=r"push: mean .*, spread 10"):
        refuse_far(far, ("push",))
    assert residuals(linear(), data.state, data.action) is None


def test_own_noise_is_called_foreign_no_oftener_than_it_says():
    known = torch.cat([torch.ones(500, 1), draws(500, 0.0, 9)], dim=1).numpy()
    p = [described(draws(500, 0.0, k, 2).numpy(), known).p_value for k in range(400)]
    assert np.mean(np.array(p) < 0.05) < 0.08
    assert np.mean(np.array(p) < LEVEL) < 0.01


def test_derivatives_are_as_wrong_as_neighbours_say():
    data = recorded(300, 30)
    right, wrong = (directional(data, each) for each in (task().simulator, task(0.6).prior))
    (ratio, span), (known, ends) = right.error[-1], wrong.error[1]
    assert span.low < 0 < span.high and abs(ratio.value) < 0.05
    # Only the push moves the velocity: (1 − 0.6)² of its derivative.
    assert ends.low < 0.16 < ends.high and ends.high - ends.low < 0.15
    assert 0.3 < wrong.noise[1][0].value < 0.9 and known.value > 0


def test_neighbours_are_the_nearest_of_other_trajectories():
    unit, number = draws(60, 0.0, 4), torch.arange(60) // 6
    rows = torch.tensor([0, 17, 59])
    index, distance = nearest_rows(unit, number, rows, 5)
    for row, near, far in zip(rows.tolist(), index, distance, strict=True):
        gaps = (unit - unit[row]).norm(dim=1)
        best = sorted(
            (float(gaps[number == k].min()), int(gaps.masked_fill(number != k, 9e9).argmin()))
            for k in range(10)
            if k != row // 6
        )[:5]
        assert near.tolist() == [each for _, each in best]
        torch.testing.assert_close(far, torch.tensor([each for each, _ in best]).double())


class Shifted(nn.Module):
    """A critic, scaled and shifted."""

    def __init__(self, critic, scale, shift):
        super().__init__()
        self.critic, self.scale, self.shift = critic, scale, shift

    def forward(self, state, action):
        value: torch.Tensor = self.critic(state, action)
        return self.scale * value + self.shift


def test_a_critic_is_judged_by_its_equation_and_by_returns():
    world, path = task(), windows(recorded(300, 60), 60).path
    weight = linear().network[0].weight
    exact = ExactCritic(world.simulator, weight, DISCOUNT)
    good, steep = (judged(each, path, DISCOUNT) for each in (exact, Shifted(exact, 2.0, 0.0)))
    assert good["slope"][0].value == pytest.approx(1.0, abs=0.05)
    assert steep["slope"][0].value < 0.6
    # A constant c leaves (1 − γ) c in the residual, over the critic's spread.
    low, high = Shifted(exact, 1.0, 0.0), Shifted(exact, 1.0, 10.0)
    first, second = (judged(each, path, DISCOUNT)["residual"][0].value for each in (low, high))
    actions = path.actions[:-1].flatten(0, 1)
    spread = float(exact(path.states[:-1].flatten(0, 1), actions).std(correction=0))
    assert second - first == pytest.approx(-(1 - DISCOUNT) * 10.0 / spread, rel=1e-6)
    least, most = return_bound(path, DISCOUNT)
    assert least < 20 * float(path.rewards.min()) + 1 and most <= 0
    assert judged(Shifted(exact, 1.0, 1e4), path, DISCOUNT)["beyond"][0].value == 1.0


def test_targets_of_refitted_critics_are_returns_and_stop_where_a_trajectory_fell():
    data = recorded(4, 30)
    found, number = evaluation(data, DISCOUNT)
    assert len(found.returns) == 4 * 29 and number.tolist() == [
        k for k in range(4) for _ in range(29)
    ]
    reward = data.reward.reshape(4, 30)
    gamma = DISCOUNT ** torch.arange(25, dtype=torch.float64)
    torch.testing.assert_close(found.returns.reshape(4, 29)[:, 2], (reward[:, 2:27] * gamma).sum(1))
    assert torch.equal(
        found.last_state.reshape(4, 29, 2)[:, 2], data.state.reshape(4, 30, 2)[:, 27]
    )
    torch.testing.assert_close(found.returns.reshape(4, 29)[:, 28], reward[:, 28])
    assert float(found.bootstrap[2]) == pytest.approx(DISCOUNT**25)
    data, _ = fallen()
    found, number = evaluation(data, DISCOUNT)
    which = int(data.trajectory[data.terminated][0])
    own = number == which
    rewards = data.reward[data.trajectory == which]
    gamma = DISCOUNT ** torch.arange(len(rewards), dtype=torch.float64)
    assert not found.bootstrap[own].any() and int(own.sum()) == len(rewards)
    assert float(found.returns[own][0]) == pytest.approx(float((gamma * rewards).sum()))


@pytest.mark.slow
def test_refitted_critics_differ_and_leave_half_of_the_data(monkeypatch):
    monkeypatch.setattr(fitting, "UPDATES", 30)
    data = recorded(20, 10)
    found = measure_logs(data, noisy(), task().prior, discount=DISCOUNT, horizon=3, fit_critics=2)
    assert found.config["trajectories"] == 10 and found.config["critics"] == 2
    between = found.rows("gradient", quantity="variance_critics")
    assert (between["ci_high"] > 0).all() and len(between) == 4
    slopes = found.rows("critic", quantity="slope")["value"].tolist()
    assert len(slopes) == 2 and slopes[0] != slopes[1]
    with pytest.raises(InputError, match="7 trajectories, expected at least 8"):
        measure_logs(recorded(7, 5), noisy(), discount=DISCOUNT, fit_critics=2)
