"""Named estimators agree where the papers say they do, and with their definitions."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.data.trajectories import load, segments
from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.gradients.alpha_order import Trust, alpha_order
from gradlab.gradients.bptt import mean_and_squared_norms
from gradlab.gradients.horizons import horizon_gradients
from gradlab.gradients.named import Mixture
from gradlab.gradients.recording import record
from gradlab.gradients.rollout import rollout
from gradlab.gradients.start_laws import repeated
from gradlab.gradients.starts import as_starts
from gradlab.networks.policies import Gaussian, GaussianPolicy
from gradlab.systems.recorded import Recorded
from tests.gradients.worlds import Critic, linear, network, nonlinear

GAMMA = 0.9
SIM, MODEL = nonlinear(), nonlinear(0.8)


def ingredients(squash=False):
    torch.manual_seed(3)
    policy = GaussianPolicy(2, 2, hidden=(8,), squash=squash).double()
    starts = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return policy, Critic(4), starts


def same(a, b, policy, starts):
    found = (each.gradients(policy, starts, seed=5) for each in (a, b))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_the_unified_gradient_at_horizon_zero_is_the_data_driven_one():
    policy, critic, starts = ingredients()
    data = named.data_driven(SIM, critic, GAMMA)
    same(named.unified(MODEL, critic, GAMMA, 0), data, policy, starts)
    same(named.rp_dp(MODEL, critic, GAMMA, 0), named.rp0(SIM, critic, GAMMA), policy, starts)
    same(named.svg0(SIM, critic, GAMMA), data, policy, starts)


def test_with_an_exact_model_everybody_is_the_true_dynamics():
    policy, critic, starts = ingredients()
    exact = nonlinear()  # another object with the same dynamics
    truth = named.true_dynamics(SIM, critic, GAMMA, 4)
    same(named.model_driven(exact, critic, GAMMA, 4), truth, policy, starts)
    same(named.rp_dp(exact, critic, GAMMA, 4), truth, policy, starts)
    soft = named.ddppo(SIM, SIM, critic, GAMMA, 4, 0.2)
    same(soft, named.maac(exact, critic, GAMMA, 4, 0.2), policy, starts)


@pytest.mark.parametrize("squash", [False, True])
def test_rp_dr_on_recorded_transitions_infers_the_noise_that_made_them(squash):
    torch.manual_seed(0)
    system, model = linear(), linear(0.9)
    policy, critic = (
        GaussianPolicy(2, 1, hidden=(8,), squash=squash, limit=None).double(),
        Critic(3),
    )
    starts = torch.randn(7, 2, dtype=torch.float64)
    path = rollout(system, policy, as_starts(starts, 2), 4, seed=5)
    forgotten = replace(
        path,
        policy_noise=path.policy_noise[..., :0],
        dynamics_noise=path.dynamics_noise[..., :0],
    )
    recorded = named.rp_dr(model, critic, GAMMA, 4).gradients(policy, forgotten)
    spliced = Estimator(system, model, "all", Tail(4, critic, GAMMA))
    torch.testing.assert_close(
        recorded, spliced.gradients(policy, starts, seed=5), rtol=1e-8, atol=1e-9
    )
    exact = named.rp_dr(system, critic, GAMMA, 4).gradients(policy, forgotten)
    truth = named.true_dynamics(system, critic, GAMMA, 4).gradients(policy, starts, seed=5)
    torch.testing.assert_close(exact, truth, rtol=1e-8, atol=1e-9)


def test_rp_dr_runs_on_trajectories_from_a_file(tmp_path):
    torch.manual_seed(0)
    system, policy, critic = linear(), GaussianPolicy(2, 1, hidden=(8,)).double(), Critic(3)
    record(system, policy, torch.randn(5, 2).double(), 9).save(tmp_path / "data.h5")
    path = segments(load(tmp_path / "data.h5"), 3)
    assert len(path.group.unique()) == 5
    found = horizon_gradients(
        named.rp_dr(linear(0.9), critic, GAMMA, 3), policy, as_starts(path, 2), block=4
    )
    assert torch.isfinite(found.means).all()
    value = Critic(2)
    weighted = named.importance_weighted(path, policy, torch.zeros(path.states.shape[1]).double())
    ratio = policy.log_prob(path.states[0], path.actions[0]).detach().exp()
    one = named.svg1(linear(0.9), value, GAMMA)
    plain, scaled = one.gradients(policy, path), one.gradients(policy, weighted)
    torch.testing.assert_close(scaled, plain * ratio[:, None])


def test_a_mixture_is_the_weighted_sum_of_its_parts():
    policy, critic, starts = ingredients()
    weights = {0: 0.2, 3: 0.5, 5: 0.3}
    mixed = named.general_mpg(SIM, MODEL, critic, GAMMA, weights)
    parts = [
        weight * named.unified(MODEL, critic, GAMMA, n).gradients(policy, starts)
        for n, weight in weights.items()
    ]
    torch.testing.assert_close(mixed.gradients(policy, starts), sum(parts))
    torch.testing.assert_close(mixed.mean_gradient(policy, starts), sum(parts).mean(dim=0))
    two = named.mpg(SIM, MODEL, critic, GAMMA, 3, data_weight=1.0)
    same(two, named.data_driven(SIM, critic, GAMMA), policy, starts)
    with pytest.raises(InputError, match="0 must be among them"):
        named.general_mpg(SIM, MODEL, critic, GAMMA, {3: 1.0})
    with pytest.raises(InputError, match="parts is empty"):
        Mixture(())


def test_bptt_is_the_derivative_of_the_return():
    policy, _, starts = ingredients()
    path_noise = as_starts(starts, 2)
    got = named.bptt(SIM, GAMMA, 5).gradients(policy, starts)

    def returns():
        s, total = starts, 0.0
        for t in range(5):
            a = policy(s, path_noise.policy_noise(policy, 0, t))
            out = SIM.step(s, a, path_noise.dynamics_noise(SIM, 0, t))
            total, s = total + GAMMA**t * out.reward, out.state
        return total

    grads = torch.autograd.grad(returns().sum(), list(policy.parameters()))
    torch.testing.assert_close(got.sum(dim=0), torch.cat([g.flatten() for g in grads]))


@pytest.mark.parametrize("termination", ["ignore", "mask"])
@pytest.mark.parametrize("squash", [False, True])
def test_scores_are_log_density_gradients_times_returns_to_go(squash, termination):
    policy, critic, starts = ingredients(squash)
    begin = as_starts(starts, 2)
    for n, q in ((0, critic), (3, critic), (3, None)):
        got = named.likelihood_ratio(SIM, q, GAMMA, n).gradients(policy, starts, 5, termination)
        path = rollout(SIM, policy, begin, n, seed=5)
        tail = critic(path.states[n], path.actions[n]).detach() if q is not None else 0.0
        for i in range(len(starts)):
            total = 0.0
            for t in range(n + (q is not None)):
                to_go = sum(GAMMA**k * path.rewards[k, i] for k in range(t, n))
                to_go = to_go + (GAMMA**n * tail[i] if q is not None else 0.0)
                density = policy.log_prob(path.states[t, i : i + 1], path.actions[t, i : i + 1])
                total = total + density[0] * to_go
            grads = torch.autograd.grad(total, list(policy.parameters()))
            flat = torch.cat([g.flatten() for g in grads])
            torch.testing.assert_close(got[i], flat, rtol=1e-8, atol=1e-10)


def test_score_and_pathwise_gradients_have_one_mean():
    torch.manual_seed(0)
    system, critic = linear(), Critic(3)
    policy = Gaussian(network((2, 6, 1), nn.Tanh), 0.5)
    starts = 0.5 * torch.randn(1, 2).double().expand(40000, 2)
    first = named.model_driven(system, critic, GAMMA, 3)
    zeroth = named.likelihood_ratio(system, critic, GAMMA, 3)
    G1, G0 = (each.gradients(policy, starts, seed=1) for each in (first, zeroth))
    gap = G1 - G0
    error = gap.std(dim=0) / len(gap) ** 0.5
    assert (gap.mean(dim=0).abs() <= 4.5 * error).all()
    assert G0.var(dim=0).sum() > 5 * G1.var(dim=0).sum()


def test_all_horizons_of_a_score_equal_one_at_a_time():
    policy, critic, starts = ingredients()
    found = horizon_gradients(
        named.likelihood_ratio(SIM, critic, GAMMA, 4), policy, as_starts(starts, 2), block=4
    )
    for n in found.horizons:
        G = named.likelihood_ratio(SIM, critic, GAMMA, n).gradients(policy, starts)
        torch.testing.assert_close(found.means[n], G.mean(dim=0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.squared_norms[n], (G**2).sum(dim=1), rtol=1e-9, atol=1e-12)


def test_entropy_adds_the_gradient_of_the_soft_return():
    policy, critic, starts = ingredients()
    begin, alpha = as_starts(starts, 2), 0.3
    got = named.maac(MODEL, critic, GAMMA, 3, alpha).gradients(policy, starts)

    def soft_returns():
        s, total = starts, 0.0
        for t in range(4):
            a = policy(s, begin.policy_noise(policy, 0, t))
            price = alpha * policy.log_prob(s, a)
            if t == 3:
                return total + GAMMA**t * (critic(s, a) - price)
            out = MODEL.step(s, a, begin.dynamics_noise(MODEL, 0, t))
            total, s = total + GAMMA**t * (out.reward - price), out.state

    grads = torch.autograd.grad(soft_returns().sum(), list(policy.parameters()))
    torch.testing.assert_close(got.sum(dim=0), torch.cat([g.flatten() for g in grads]))


def test_alpha_order_weighs_by_variance_and_falls_back_on_the_score():
    torch.manual_seed(0)
    system, critic = linear(), Critic(3)
    policy = Gaussian(network((2, 4, 1), nn.Tanh), 0.5)
    starts = torch.randn(1, 2).double().expand(3000, 2)
    zeroth = named.likelihood_ratio(system, critic, GAMMA, 2)
    honest = alpha_order(named.model_driven(system, critic, GAMMA, 2), zeroth, policy, starts)
    assert honest.alpha == pytest.approx(
        honest.variance_zeroth / (honest.variance_zeroth + honest.variance_first)
    )
    assert not honest.empirically_biased
    wrong = named.model_driven(linear(0.5), critic, GAMMA, 2)
    biased = alpha_order(wrong, zeroth, policy, starts)
    assert biased.empirically_biased
    spent = alpha_order(wrong, zeroth, policy, starts, Trust(accuracy=biased.radius))
    assert spent.alpha == 0.0
    room = biased.radius + 0.5 * biased.least_variance * biased.disagreement
    half = alpha_order(wrong, zeroth, policy, starts, Trust(accuracy=room))
    assert half.alpha == pytest.approx(0.5 * biased.least_variance)
    late = alpha_order(wrong, zeroth, policy, starts, Trust(failure=0.95))
    assert late.radius < biased.radius
    with pytest.raises(InputError, match="expected 'all' and 'score'"):
        alpha_order(zeroth, zeroth, policy, starts)


def test_several_samples_per_start_share_a_group():
    policy, critic, starts = ingredients()
    path = repeated(starts, 3)
    found = named.maac(MODEL, critic, GAMMA, 2, 0.1).gradients(policy, path)
    assert len(found) == 18
    assert len(path.group.unique()) == 6
    assert (found[0] - found[1]).norm() > 0


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
        row = table.loc[name, "bias2", 80]
        assert row.ci_low <= 1e-3 * profile.truth["norm"] ** 2
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
        (lambda c: on_deterministic(named.maac(SIM, c, GAMMA, 2, 0.1)), "stochastic"),
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


def test_horizons_outside_of_the_estimator_are_refused():
    policy, critic, starts = ingredients()
    estimator = named.unified(SIM, critic, GAMMA, 3)
    with pytest.raises(InputError, match="within 0 … 3"):
        horizon_gradients(estimator, policy, as_starts(starts, 2), horizons=(5,))


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
        mean, norms = mean_and_squared_norms(estimator, policy, starts, 2, "mask")
        torch.testing.assert_close(norms, found.squared_norms[-1])
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


@pytest.mark.parametrize("evaluate", [mean_and_squared_norms, horizon_gradients])
def test_every_entry_checks_what_it_is_given(evaluate):
    system, critic = linear(), Critic(3)
    policy = nn.Linear(2, 1).double()

    class Wide(Critic):
        def forward(self, *inputs):
            return torch.cat(inputs, dim=1)

    def attempt(estimator, policy=policy, **options):
        return evaluate(estimator, policy, torch.zeros(4, 2).double(), **options)

    estimator = named.model_driven(system, critic, GAMMA, 2)
    for act, word in (
        (lambda: attempt(named.model_driven(system, Wide(3), GAMMA, 2)), "critic returns"),
        (lambda: attempt(estimator, termination="msak"), "termination"),
        (lambda: attempt(estimator, nn.Sequential(policy, nn.Dropout())), "train mode"),
        (lambda: attempt(estimator, nn.Linear(2, 1).double().requires_grad_(False)), "trainable"),
        (lambda: attempt(Mixture(((1.0, estimator),))), "expected an Estimator"),
    ):
        with pytest.raises(InputError, match=word):
            act()


def test_reused_weights_have_their_exact_variance_too():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False).double()

        def forward(self, s):
            return torch.tanh(self.a(s))[:, :1] + nn.functional.linear(s, self.a.weight)[:, 1:]

    torch.manual_seed(0)
    policy, estimator = Tied(), named.model_driven(linear(), Critic(3), GAMMA, 3)
    starts = torch.randn(5, 2).double()
    with pytest.warns(UserWarning, match="outside linear layers"):
        G = estimator.gradients(policy, starts)
        mean, norms = mean_and_squared_norms(estimator, policy, starts)
    torch.testing.assert_close(mean, G.mean(dim=0))
    torch.testing.assert_close(norms, (G**2).sum(dim=1))


def test_groups_are_not_taken_for_independent_samples():
    policy, critic, starts = ingredients()
    found = horizon_gradients(named.maac(MODEL, critic, GAMMA, 2, 0.1), policy, repeated(starts, 3))
    with pytest.raises(InputError, match="share groups"):
        found.variance()
