"""From a record to a verdict, a file, a page and an exit code; and everything that is refused.

Scores and pathwise gradients of recorded windows, and the inner products made of them. What is read
from inner products, neighbours, residuals and critics, against what is known.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn

from gradlab.data.trajectories import first, segments, stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.named import rp_dr
from gradlab.gradients.setting import Tail
from gradlab.networks.policies import Gaussian
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, PairSums
from gradlab.systems.system import Recorded
from gradlab.tools.jacobians.result import load as load_jacobians
from gradlab.tools.logs import gradients
from gradlab.tools.logs.arguments import windows
from gradlab.tools.logs.compute import measure_logs
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
from gradlab.tools.logs.findings import (
    Number,
    advice,
    agreements,
    decided,
    load,
    numbers,
    supported,
    verdict,
)
from gradlab.tools.logs.gradients import (
    agreement,
    baselines,
    model_source,
    noise_of,
    score_source,
)
from tests.linear_quadratic import ExactCritic
from tests.logs.carts import (
    STD,
    fallen,
    falling,
    linear,
    noisy,
    recorded,
    task,
    true_gradient,
)

DISCOUNT = task().discount


def critics():
    weight = linear().network[0].weight
    return [ExactCritic(task(push).prior, weight, DISCOUNT) for push in (1.0, 0.8)]


@pytest.fixture(scope="module")
def run():
    """Of a wrong model and two critics."""
    return measure_logs(
        recorded(300, 40), noisy(), task(0.4).prior, critics(), discount=DISCOUNT, horizon=8
    )


def told(run, about):
    return [each for each in verdict(run) if each.code == f"logs.{about}"]


def test_the_exact_model_is_supported_and_a_wrong_one_refuted():
    for push, right in ((1.0, True), (0.1, False)):
        model = task(push).prior
        found = measure_logs(recorded(600, 8), noisy(), model, discount=DISCOUNT, horizon=6)
        same = agreements(found, "same")
        assert (supported(same) >= 5) == right
        assert any(each.decision == "fail" for each in same) != right
        decisions = [each.decision for each in told(found, "support")]
        assert ("fail" not in decisions) == right


def test_at_horizon_0_no_model_can_be_wrong_and_whole_returns_need_long_horizons(run):
    assert agreements(run, "same")[0].decision != "fail"
    assert not told(run, "control")
    whole = {each.horizon: each.gap.value for each in agreements(run, "whole")}
    assert run.config["reach"] == 40 and whole[8] < whole[1]
    assert told(run, "whole")[0].subject == "40 steps"


def test_a_file_gives_back_what_was_found(run, tmp_path):
    path = run.save(tmp_path / "logs.h5")
    again = load(path)
    for name, values in run.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    assert verdict(again) == verdict(run)
    assert dict(again.config) == json.loads(json.dumps(dict(run.config)))
    with pytest.raises(InputError, match="holds 'logs'"):
        load_jacobians(path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.h5")


def test_a_deterministic_record_has_no_score_but_the_rest():
    world = task()
    data = recorded(60, 12, policy=linear())
    found = measure_logs(data, linear(), world.prior, critics(), discount=DISCOUNT, horizon=5)
    assert advice(found).use.endswith("no score exists")
    assert not numbers(found, "gradient", "variance", "score")
    assert numbers(found, "gradient", "variance", "model") and told(found, "critic")
    assert not told(found, "support")
    with pytest.raises(InputError, match=r"lie about \((0.3|0.29).*noise_std"):
        measure_logs(recorded(60, 8), linear(), world.prior, discount=DISCOUNT)


def test_known_noise_makes_a_deterministic_policy_stochastic():
    data, model = recorded(60, 8), task().prior
    one = measure_logs(data, linear(), model, discount=DISCOUNT, horizon=3, noise_std=STD)
    two = measure_logs(data, noisy(), model, discount=DISCOUNT, horizon=3)
    assert one.table().equals(two.table())


def test_an_end_that_actions_move_is_told():
    data, policy = fallen()
    found = measure_logs(data, policy, falling(), discount=DISCOUNT, horizon=5)
    assert told(found, "ended")[0].value > 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"discount": 1.2}, "discount is 1.2"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": 5, "reach": 3}, "reach is 3, expected at least the horizon"),
        ({"data": [1, 2]}, "data is a list"),
        ({"model": 3}, "model is 3, expected a System"),
        ({"model": falling()}, "data has states of width 2, expected 1"),
        ({"critic": []}, "empty sequence"),
        ({"critic": torch.nn.Linear(3, 1)}, "critic"),
        ({"policy": torch.nn.Linear(3, 1)}, "policy cannot take inputs"),
        ({"noise_std": 0.1}, "stochastic already"),
        ({"policy": linear(), "noise_std": (0.1, 0.2, 0.3)}, "3 numbers for 1 actions"),
        ({"policy": noisy(0.05)}, "not of this policy"),
        ({"data": recorded(1, 20)}, "1 trajectories"),
        ({"data": recorded(6, 4)}, "of which 0 have 5 steps"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(changed, says):
    known = {"data": recorded(6, 8), "policy": noisy(), "model": task().prior, "critic": None}
    arguments = known | {"discount": DISCOUNT, "horizon": 5} | changed
    with pytest.raises(InputError, match=says):
        measure_logs(**arguments)


# Windows of recorded trajectories hold the whole return of their first state.


def test_windows_of_whole_trajectories_are_segments():
    data = recorded(6, 5)
    cut, known = windows(data, 5).path, segments(data, 5)
    for name in ("states", "rewards", "alive", "group"):
        assert torch.equal(getattr(cut, name), getattr(known, name)), name
    assert torch.equal(cut.actions[:-1], known.actions[:-1])
    assert cut.actions[-1].isnan().all()


def test_a_fallen_trajectory_goes_on_dead_and_its_return_is_that_of_the_rows():
    data, _ = fallen()
    lengths = torch.bincount(data.trajectory)
    early = int((lengths < 4).nonzero()[0])
    cut = windows(data, 6)
    assert cut.trajectories == 40 and cut.left_out == 0
    column = cut.path.group.tolist().index(early)
    n = int(lengths[early])
    assert cut.path.alive[:, column].tolist() == [True] * n + [False] * (7 - n)
    assert not cut.path.rewards[n:, column].any()
    last = data.next_state[data.trajectory == early][-1]
    assert torch.equal(cut.path.states[n:, column], last.expand(7 - n, -1))
    ended = float(data.terminated.sum()) / 40
    assert cut.ended == pytest.approx(ended)
    rewards = windows(data, 6).path.rewards.sum(dim=0)
    known = torch.zeros(40, dtype=torch.float64).index_add_(0, data.trajectory, data.reward)
    torch.testing.assert_close(rewards, known)


def test_a_trajectory_that_merely_stops_is_left_out():
    short = first(recorded(6, 5), 28)  # the last has 3 steps
    assert windows(short, 5).left_out == 1
    assert windows(short, 3).left_out == 0


def test_windows_begin_every_so_many_steps():
    cut = windows(recorded(5, 10), 4, every=3)
    assert cut.path.group.tolist() == [k for k in range(5) for _ in range(3)]
    first_rows = recorded(5, 10).state.reshape(5, 10, 2)[:, [0, 3, 6]].reshape(15, 2)
    assert torch.equal(cut.path.states[0], first_rows)


@pytest.mark.parametrize(
    ("count", "steps", "every", "told"),
    [
        (3, 5, None, "3 trajectories, of which 3"),
        (6, 9, None, "of which 0 have 9 steps"),
        (6, 0, None, "steps is 0"),
        (6, 5, 0, "every is 0"),
    ],
)
def test_too_little_is_refused_with_numbers(count, steps, every, told):
    with pytest.raises(InputError, match=told):
        windows(recorded(count, 5), steps, every)


def score(path, policy, horizons, critic=None, **how):
    width = path.states.shape[2]
    tail = Tail(max(horizons), critic, DISCOUNT)
    estimator = Estimator(Recorded(width, 1), None, "score", tail)
    return score_source(estimator, policy, path.cut(max(horizons)), horizons, 0, **how)


def by_autograd(data, policy, steps):
    """Σ_t γᵗ ∇ log π(a_t|s_t) Σ_{k≥t} γ^{k−t} r_k of every trajectory, [N, P]."""
    rows = []
    for which in range(int(data.trajectory.max()) + 1):
        here = (data.trajectory == which).nonzero()[:, 0][:steps]
        gamma = DISCOUNT ** torch.arange(len(here), dtype=torch.float64)
        togo = (gamma * data.reward[here]).flip(0).cumsum(0).flip(0)
        log_prob = policy.log_prob(data.state[here], data.action[here])
        found = torch.autograd.grad((log_prob * togo).sum(), list(policy.parameters()))
        rows.append(torch.cat([each.flatten() for each in found]))
    return torch.stack(rows)


def test_a_score_is_that_of_autograd_and_stops_where_its_trajectory_fell():
    data, policy = recorded(8, 6), noisy()
    found = score(windows(data, 6).path, policy, (6,), baseline=False).explicit(0)
    torch.testing.assert_close(found, by_autograd(data, policy, 6), rtol=1e-10, atol=1e-12)
    data, policy = fallen()
    found = score(windows(data, 6).path, policy, (6,), baseline=False).explicit(0)
    torch.testing.assert_close(found, by_autograd(data, policy, 6), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("baseline", [True, False])
def test_the_mean_score_is_the_gradient_of_the_recorded_return(baseline):
    path, horizons = windows(recorded(3000, 6), 6).path, (1, 3, 6)
    source = score(path, noisy(), horizons, baseline=baseline)
    for k, n in enumerate(horizons):
        G = source.explicit(k)
        error = (G.mean(dim=0) - true_gradient(n)) / (G.std(dim=0) / 3000**0.5)
        assert error.abs().max() < 4, n


def test_a_baseline_takes_away_noise_and_nothing_else():
    path = windows(recorded(1000, 6), 6).path
    with_, without = (
        score(path, noisy(), (6,), baseline=each).explicit(0) for each in (True, False)
    )
    assert with_.var(dim=0).sum() < 0.02 * without.var(dim=0).sum()
    less = without - with_
    assert (less.mean(dim=0).abs() < 4 * less.std(dim=0) / 1000**0.5).all()


def test_no_trajectory_has_a_share_in_its_own_baseline():
    path = windows(recorded(40, 6), 6).path
    returns = torch.randn(2, 7, 40, generator=torch.Generator().manual_seed(0)).double()
    returns[0, 4:] = 0.0  # horizon 3 ends there
    changed = returns.clone()
    changed[:, :, 7] += 100.0
    before, after = (baselines(path, each, (3, 6), DISCOUNT) for each in (returns, changed))
    assert torch.equal(before[:, :, 7], after[:, :, 7])
    assert not torch.isclose(before[:, 0, 8], after[:, 0, 8]).any()


def test_a_quadratic_value_is_fitted_exactly():
    world, policy = task(), noisy()
    path = windows(recorded(200, 6), 6).path
    critic = ExactCritic(world.simulator, policy.policy.network[0].weight, DISCOUNT)
    value = critic(path.states.flatten(0, 1), policy.mean_action(path.states.flatten(0, 1)))
    V = value.detach().reshape(7, 200)
    gamma = DISCOUNT ** torch.arange(7, dtype=torch.float64)[:, None]
    # Returns to go that are the value itself, whatever the horizon.
    returns = torch.stack([gamma * V])
    found = baselines(path, returns, (6,), DISCOUNT)
    torch.testing.assert_close(found, returns, rtol=1e-4, atol=1e-4)


def test_the_model_gradient_is_rp_dr():
    world, policy, data = task(0.6), noisy(), recorded(12, 6)
    critic = ExactCritic(world.simulator, policy.policy.network[0].weight, DISCOUNT)
    path = windows(data, 6).path
    estimator = Estimator(Recorded(2, 1), world.prior, "all", Tail(5, critic, DISCOUNT))
    source = model_source([estimator], policy, path.cut(5), (0, 2, 5), 0)
    for k, n in enumerate((0, 2, 5)):
        known = rp_dr(world.prior, critic, DISCOUNT, n).gradients(
            policy, segments(data, 6).cut(n) if n else _begin(data)
        )
        torch.testing.assert_close(source.explicit(k), known, rtol=1e-10, atol=1e-12)


def _begin(data):
    return segments(data, 6).cut(1)


def pair(x, z):
    """Pair sums of explicit gradients [N, P], one group each."""
    sides = x @ z.sum(dim=0), z @ x.sum(dim=0)
    return PairSums((x * z).sum(dim=1).numpy(), *(side.numpy() for side in sides))


def planted(G, T=None):
    """Moments of explicit gradients [N, P], one group each."""
    truth = {} if T is None else {"truth": pair(T, T), "difference": pair(G - T, G - T)}
    truth |= {} if T is None else {"cross": pair(G, T)}
    return Moments(np.ones(len(G)), (G * G).sum(dim=1).numpy(), pair(G, G), **truth)


@pytest.mark.parametrize("held", [1 << 17, 0])
def test_moments_are_those_of_explicit_gradients(monkeypatch, held):
    monkeypatch.setattr(gradients, "_HELD", held)
    path, policy = windows(recorded(7, 10), 4, every=3).path, noisy()
    model = Estimator(Recorded(2, 1), task(0.5).prior, "all", Tail(4, None, DISCOUNT))
    found, other = model_source([model], policy, path, (2, 4), 0), score(path, policy, (2, 4))
    (moments,) = found.moments(other.explicit(1), only=1)
    X, Z = (
        torch.zeros(7, 2).double().index_add_(0, path.group, each.explicit(1))
        for each in (found, other)
    )
    for name, known in (("gradient", pair(X, X)), ("truth", pair(Z, Z)), ("cross", pair(X, Z)),
                        ("difference", pair(X - Z, X - Z))):  # fmt: skip
        for part in ("own", "left", "right"):
            sums = getattr(getattr(moments, name), part)
            np.testing.assert_allclose(sums, getattr(known, part), rtol=1e-9)
    squares = found.explicit(1).square().sum(dim=1)
    known = torch.zeros(7).double().index_add_(0, path.group, squares)
    np.testing.assert_allclose(moments.squares, known, rtol=1e-10)
    assert moments.size.tolist() == [3.0] * 7


def draws(n, mean, seed, dims=3):
    noise = torch.randn(n, dims, generator=stream(seed, "planted"), dtype=torch.float64)
    return mean + noise


def u_statistic(X):
    """Mean inner product of different rows, by the double sum."""
    n = len(X)
    return float(((X @ X.T).sum() - (X * X).sum()) / (n * (n - 1)))


def test_numbers_are_u_statistics_of_explicit_gradients():
    M, S = draws(30, 0.5, 0), draws(30, 0.2, 1)
    every = agreement(planted(M, S), planted(S))
    told = {name: estimate.value for name, (estimate, _) in every.items()}
    bias2, reference = u_statistic(M - S), u_statistic(S)
    assert told["bias2"] == pytest.approx(bias2, rel=1e-10)
    assert told["relative_bias2"] == pytest.approx(bias2 / reference, rel=1e-10)
    assert told["excess"] == pytest.approx(bias2 - 0.25 * reference, rel=1e-10)
    traces = [float(x.var(dim=0).sum()) for x in (M, S)]
    assert told["variance_ratio"] == pytest.approx(traces[0] / traces[1], rel=1e-10)


def test_a_mean_of_noise_says_nothing_of_what_it_estimates():
    norms, cosines = [], []
    for seed in range(100):
        found = noise_of(planted(draws(20, 0.0, seed)))
        norms.append(found["mean_norm"][1])
        cosines.append(found["cosine_self"][1])
    found = [noise_of(planted(draws(30, 0.4, seed))) for seed in range(100)]
    spans = [each["mean_norm"][1] for each in found]
    assert sum(span.low <= 0.4 * 3**0.5 <= span.high for span in spans) >= 90
    # A norm that is 0: it must be inside, and no interval may shrink to a point there.
    assert sum(each.low == 0.0 for each in norms) >= 92
    assert min(each.high for each in norms) > 0.05
    assert all(each.high > 0 for each in cosines)


def test_a_norm_has_the_ends_of_its_square():
    X = draws(12, 0.0, 3)
    span = noise_of(planted(X))["mean_norm"][1]
    rows = torch.arange(12)
    left_out = np.array([u_statistic(X[rows != k]) for k in range(12)])
    ends = interval("bias2", Estimate(u_statistic(X), left_out))
    assert u_statistic(X) < 0 and ends.high > 0
    assert (span.low, span.high) == pytest.approx((ends.low**0.5, ends.high**0.5))


@pytest.mark.parametrize(
    ("excess", "bias2", "gap", "known", "decision"),
    [
        ((-3, -1), (0, 1), (0, 0.2), True, "pass"),
        ((-3, -1), (0.1, 1), (0, 0.2), True, "pass"),  # known to differ, by less than half
        ((-3, -1), (0, 1), (0, 0.2), False, "undecided"),
        ((-3, -1), (0, 1), (0, 0.3), True, "undecided"),
        ((-3, 1), (0, 9), (0, 9), True, "undecided"),
        ((1, 3), (0.1, 9), (0.3, 9), True, "fail"),
        ((1, 3), (0.1, 9), (np.nan, np.nan), False, "fail"),
    ],
)
def test_the_ends_of_intervals_decide(excess, bias2, gap, known, decision):
    def number(ends):
        return Number(float(np.mean(ends)), *ends, n=9, se=1.0)

    assert decided(number(excess), number(bias2), number(gap), known) == decision


def test_critics_differ_by_what_their_means_differ():
    path, policy = windows(recorded(60, 5), 5).path, noisy()
    models = [
        Estimator(Recorded(2, 1), task(0.5).prior, "all", Tail(4, critic, DISCOUNT))
        for critic in critics()
    ]
    both = model_source(models, policy, path.cut(4), (4,), 0)
    one, other = (model_source([x], policy, path.cut(4), (4,), 0).explicit(0) for x in models)
    told = noise_of(both.moments()[0])["variance_critics"][0].value
    assert told == pytest.approx(u_statistic(one - other) / 2)


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


def test_a_critic_is_judged_by_its_equation_and_the_bound_of_returns():
    world, path = task(), windows(recorded(300, 60), 60).path
    weight = linear().network[0].weight
    exact = ExactCritic(world.simulator, weight, DISCOUNT)
    # A constant c leaves (1 − γ) c in the residual, over the critic's spread.
    low, high = Shifted(exact, 1.0, 0.0), Shifted(exact, 1.0, 10.0)
    first, second = (judged(each, path, DISCOUNT)["residual"][0].value for each in (low, high))
    actions = path.actions[:-1].flatten(0, 1)
    spread = float(exact(path.states[:-1].flatten(0, 1), actions).std(correction=0))
    assert second - first == pytest.approx(-(1 - DISCOUNT) * 10.0 / spread, rel=1e-6)
    least, most = return_bound(path, DISCOUNT)
    assert least < 20 * float(path.rewards.min()) + 1 and most <= 0
    assert judged(Shifted(exact, 1.0, 1e4), path, DISCOUNT)["beyond"][0].value == 1.0
