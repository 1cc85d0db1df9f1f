"""Estimators of the papers under masks, groups, recorded paths and wrong requests.

Recordings against the simulator, step by step.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab import Estimator, Tail, systems
from gradlab.data.trajectories import segments, stream
from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.named import Mixture
from gradlab.gradients.rollout import record, rollout
from gradlab.gradients.setting import as_starts
from gradlab.gradients.start_laws import repeated
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import Gaussian, GaussianPolicy
from gradlab.runs.identity import by_default
from gradlab.systems.system import Recorded, System
from tests.gradients.every_horizon import horizon_gradients
from tests.gradients.worlds import (
    GAMMA,
    MODEL,
    SIM,
    Critic,
    Noisy,
    ingredients,
    linear,
    network,
    same,
)


@pytest.mark.slow
@pytest.mark.parametrize("entropy", [0.0, 0.2])
def test_measure_judges_scores_and_soft_gradients(entropy):
    task = gradlab.tasks.linear_quadratic()
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()

    class Zero(nn.Module):
        def forward(self, s, a):
            return 0.0 * s[:, 0] * a[:, 0]

    sim = task.simulator
    chosen = {"all": replace(named.model_driven(sim, Zero(), task.discount, 1), entropy=entropy)}
    if not entropy:
        chosen["score"] = named.likelihood_ratio(sim, Zero(), task.discount, 1)
    profile = gradlab.measure(task, policy, None, chosen, horizon=80, starts=300)
    table = profile.table().set_index(["estimator", "quantity", "horizon"])
    assert table.value["all", "cosine", 80] > 0.999
    for name in chosen:
        row = table.loc[name, "bias2", 80]  # by its standard error: one interval in forty misses 0
        assert row.value - 3 * row.se <= 1e-3 * profile.truth["norm"] ** 2
    if not entropy:
        ratio = table.value["score", "variance", 80] / table.value["all", "variance", 80]
        assert ratio > 10


def test_estimators_of_different_temperature_are_not_compared():
    task = gradlab.tasks.linear_quadratic()
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    soft = [named.maac(task.simulator, Critic(3), task.discount, 1, a) for a in (0.1, 0.2)]
    with pytest.raises(InputError, match="different entropy"):
        gradlab.measure(task, policy, None, dict(zip("ab", soft, strict=True)), starts=8)


ORIGIN = torch.zeros(4, 2, dtype=torch.float64)


def on_deterministic(estimator):
    return estimator.gradients(network((2, 2), nn.ELU), ORIGIN)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda c: on_deterministic(named.likelihood_ratio(SIM, c, GAMMA, 2)), "Gaussian"),
        (lambda c: on_deterministic(named.maac(SIM, c, GAMMA, 2, 0.1)), "a density"),
        (lambda c: on_deterministic(named.rp_dr(MODEL, c, GAMMA, 2)), "recorded steps"),
        (lambda c: Recorded(2, 1).step(ORIGIN, ORIGIN), "cannot be stepped"),
        (lambda c: Estimator(SIM, SIM, "score", Tail(1, c, GAMMA)), "jacobians=None"),
        (lambda c: Estimator(SIM, None, "score", Tail(1, c, GAMMA), entropy=0.1), "entropy"),
    ],
)
def test_impossible_requests_are_explained(act, word):
    with pytest.raises(InputError, match=word):
        act(Critic(4))


def test_samples_without_a_finite_gradient_are_counted_at_each_horizon():
    def step(s, a):
        return 1e100 * (s + a) ** 3, -(s[:, 0] ** 2)

    system = gradlab.systems.from_function(step, 1, 1)
    estimator = named.bptt(system, GAMMA, 4)
    starts = torch.tensor([[0.0], [1.0], [2.0]]).double()
    policy = nn.Linear(1, 1, bias=False).double()
    policy.weight.data.zero_()
    found = horizon_gradients(estimator, policy, as_starts(starts, 1))
    assert found.non_finite.tolist() == [0, 2, 2, 2]
    assert not torch.isfinite(found.means[1]).all()


def test_noise_that_cannot_be_inferred_is_refused():
    policy, critic, starts = ingredients()
    path = rollout(SIM, policy, as_starts(starts, 2), 3)
    with pytest.raises(InputError, match="infer_noise"):
        named.rp_dr(MODEL, critic, GAMMA, 3).gradients(policy, path)
    deterministic = network((2, 1), nn.ELU)
    on_policy = rollout(linear(), deterministic, as_starts(starts, 2), 3)
    named.rp_dr(linear(0.9), Critic(3), GAMMA, 3).gradients(deterministic, on_policy)
    off_policy = replace(on_policy, actions=on_policy.actions + 0.1)
    with pytest.raises(InputError, match="differ from the deterministic policy"):
        named.rp_dr(linear(0.9), Critic(3), GAMMA, 3).gradients(deterministic, off_policy)


def diverging():
    """Ends at |s| > 1 and then blows up."""

    def step(s, a):
        dead = s.abs() > 1
        return torch.where(dead, 1e200 * s**3, 0.9 * s + 0.8 * a), -(s[:, 0] ** 2) - a[:, 0] ** 2

    return gradlab.systems.from_function(step, 1, 1, alive=lambda s: s[:, 0].abs() <= 1)


@pytest.mark.parametrize("actions", ["first", "all", "score"])
def test_nothing_beyond_a_terminal_state_spoils_a_masked_gradient(actions):
    system, critic = diverging(), Critic(2)
    torch.manual_seed(0)
    policy = GaussianPolicy(1, 1, hidden=(6,)).double()
    starts = torch.linspace(-1, 1, 16).double()[:, None]
    model = None if actions == "score" else system
    estimator = Estimator(system, model, actions, Tail(8, critic, GAMMA))
    found = horizon_gradients(estimator, policy, starts, termination="mask", seed=2)
    assert found.non_finite.sum() == 0
    free = horizon_gradients(estimator, policy, starts, seed=2)
    assert free.non_finite[-1] > 0
    if actions != "score":
        mean = mean_gradient(estimator, policy, starts, 2, "mask")
        torch.testing.assert_close(mean, found.means[-1])


def test_what_is_too_large_to_be_squared_spoils_only_the_horizons_that_reach_it():
    def step(s, a):
        return 30 * s + a, -(s[:, 0] ** 2)

    system, policy = gradlab.systems.from_function(step, 1, 1), nn.Linear(1, 1)
    estimator = named.model_driven(system, Critic(2).float(), GAMMA, 20)
    starts = torch.linspace(0.5, 1, 16)[:, None]
    long = horizon_gradients(estimator, policy, starts)
    short = horizon_gradients(
        named.model_driven(system, estimator.tail.critic, GAMMA, 5), policy, starts
    )
    assert long.non_finite[:6].sum() == 0
    torch.testing.assert_close(long.squared_norms[:6], short.squared_norms)
    assert long.non_finite[-1] == 16


def test_saturated_actions_keep_their_score():
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 1, hidden=(8,), squash=True)
    with torch.no_grad():
        policy.network[-1].bias.add_(torch.tensor([40.0, 0.0]))
    found = named.likelihood_ratio(linear_float(), Critic(3).float(), GAMMA, 2)
    assert torch.isfinite(found.gradients(policy, torch.randn(8, 2))).all()


def linear_float():
    system = linear()
    names = ("A", "B", "Q", "R", "noise_covariance")
    return type(system)(*(getattr(system, name).float() for name in names))


def test_measure_takes_recorded_trajectories():
    task = gradlab.tasks.linear_quadratic()
    torch.manual_seed(0)
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    data = record(task.simulator, policy, task.starts(60, torch.Generator()), 40)
    path = segments(data, 40)
    chosen = {
        "rp-dr": named.rp_dr(task.simulator, Critic(3), task.discount, 1),
        "svg1": replace(named.svg1(task.simulator, Critic(2), task.discount)),
    }
    table = gradlab.measure(task, policy, None, chosen, horizon=40, starts=path).table()
    cosine = table.query("quantity == 'cosine' and estimator == 'rp-dr'").set_index("horizon").value
    assert cosine[40] > 0.95
    assert set(table.query("estimator == 'svg1'").horizon) == set(range(1, 41))


def test_mixtures_are_measured_by_their_parts_and_skip_weight_zero():
    policy, critic, starts = ingredients()

    class Explodes:
        def __getattr__(self, name):
            return getattr(MODEL, name)

        def step(self, state, action, noise=None):
            raise RuntimeError("rolled out")

    with pytest.raises(InputError, match="horizon is 0"):
        named.mpg(SIM, MODEL, critic, GAMMA, 0, 0.3)
    data = named.data_driven(SIM, critic, GAMMA)
    lazy = Mixture(((1.0, data), (0.0, named.unified(Explodes(), critic, GAMMA, 2))))
    same(lazy, data, policy, starts)
    task = gradlab.tasks.linear_quadratic()
    with pytest.raises(InputError, match="'mixed' is a Mixture"):
        gradlab.measure(task, nn.Linear(2, 1), None, {"mixed": lazy}, starts=8)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False).double()

    def forward(self, s):
        return torch.tanh(self.a(s))[:, :1] + nn.functional.linear(s, self.a.weight)[:, 1:]


class Positions(nn.Linear):
    """Reads a part of what it is given."""

    def __init__(self):
        super().__init__(1, 1, dtype=torch.float64)

    def forward(self, s):
        return super().forward(s[:, :1])


@pytest.mark.parametrize("module", [Tied, Positions])
def test_policies_of_other_layers_have_their_exact_variance_too(module):
    torch.manual_seed(0)
    policy, estimator = module(), named.model_driven(linear(), Critic(3), GAMMA, 3)
    starts = torch.randn(5, 2).double()
    with pytest.warns(UserWarning, match="outside linear layers"):
        G = estimator.gradients(policy, starts)
        found = horizon_gradients(estimator, policy, starts, horizons=(3,))
    torch.testing.assert_close(found.means[0], G.mean(dim=0))
    torch.testing.assert_close(found.squared_norms[0], (G**2).sum(dim=1))


def test_groups_are_not_taken_for_independent_samples():
    policy, critic, starts = ingredients()
    found = horizon_gradients(named.maac(MODEL, critic, GAMMA, 2, 0.1), policy, repeated(starts, 3))
    with pytest.raises(InputError, match="share groups"):
        found.variance()


def mixing(actions):
    return Estimator(SIM, SIM, actions, Tail(3, None, GAMMA))


def test_a_measurement_compares_them_beside_the_others():
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    sim = task.simulator
    chosen = {"all": named.bptt(sim, task.discount, 2)}
    chosen["score"] = named.likelihood_ratio(sim, None, task.discount, 2)
    chosen |= {
        "ivw": named.ivw_h(sim, None, task.discount, 2),
        "ddcg": named.ddcg(sim, None, task.discount, 2),
        "total": named.total_propagation(sim, None, task.discount, 2),
    }
    table = gradlab.measure(
        task, policy, None, chosen, horizon=2, starts=256, judges=4, rehearse=False
    ).table()
    variance = table[table.quantity == "variance"].set_index(["estimator", "horizon"]).value
    for name in ("ivw", "ddcg", "total"):
        assert variance[name, 2] < 1.5 * variance["all", 2] < 0.1 * variance["score", 2]
    assert not table[table.quantity == "bias2"].value.dropna().empty


def on(policy):
    return lambda: mixing("ivw").gradients(policy, torch.zeros(4, 2).double())


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (on(network((2, 2), nn.ELU)), "the policy is deterministic"),
        (on(Noisy(network((2, 4), nn.ELU), 2)), "no density"),
        (lambda: replace(mixing("total"), entropy=0.1), "entropy is for pathwise"),
        (lambda: replace(mixing("ddcg"), jacobians=None), "jacobians is None"),
        (lambda: replace(named.svg_infinity(SIM, GAMMA, 2), actions="ivw"), "states are recorded"),
    ],
)
def test_what_has_no_meaning_is_refused(act, word):
    with pytest.raises(InputError, match=word):
        act()


class Dense(nn.Module):
    """A density without a head that can be read."""

    def __init__(self):
        super().__init__()
        self.inner, self.noise_dim = ingredients()[0], 2

    def forward(self, s, e):
        return self.inner(s, e)

    def log_prob(self, s, a):
        return self.inner.log_prob(s, a)

    def infer_noise(self, s, a):
        return self.inner.infer_noise(s, a)


def test_a_policy_without_a_head_is_refused():
    with pytest.raises(InputError, match="no Gaussian head"):
        on(Dense())()


ALSO = ("score", "ivw", "ddcg", "total", "cut_transition")


def test_names_beside_the_default_estimators():
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    critic, few = Critic(3), dict(horizon=1, starts=32, judges=4, rehearse=False)
    profile = gradlab.measure(task, policy, critic, **few, also=ALSO)
    table = profile.table().set_index(["estimator", "quantity", "horizon"]).value
    for name in ALSO:
        assert table[f"true_dynamics_{name}", "variance", 1] > 0
    one = gradlab.measure(task, policy, critic, **few)
    alone = one.table().set_index(["estimator", "quantity", "horizon"]).value
    from_names = by_default(tuple(profile.estimators), profile.config["actions"])
    assert profile.identities == from_names
    assert table["data", "bias2", 0] == alone["data", "bias2", 0]
    assert tuple(profile.config["also"]) == ALSO
    plain = policy.policy
    for also, given, word in [
        (("ivwh",), plain, "also is 'ivwh', expected one of score, ivw, ddcg, total, cut_tra"),
        (("ivw",), plain, "a density"),
        (("score",), plain, "a density"),
        ("score", plain, "in a tuple"),
        (None, plain, "also is None, expected several values in a tuple"),
    ]:
        with pytest.raises(InputError, match=word):
            gradlab.measure(task, given, critic, **few, also=also)
    with pytest.raises(InputError, match="estimators of your own"):
        gradlab.measure(
            task, policy, None, {"a": named.bptt(SIM, GAMMA, 1)}, starts=32, also=("ivw",)
        )


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
