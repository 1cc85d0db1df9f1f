"""Each check passes where all is well, and catches the fault that it is there for.

Checks of leaks of θ, of float32 and of sizes, on planted faults. Jacobians by differences, where a
jump lies inside their stencil: counted, and said aloud. Where gradients are taken: alive states,
those that learned models have seen, tasks' starts.
"""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.findings import failed
from gradlab.findings.checks import saturated
from gradlab.gradients.setting import Starts
from gradlab.gradients.start_laws import alive_counts, check_alive
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.policies import GaussianPolicy
from gradlab.systems import Certificate, Linearization, LinearQuadratic, Transition, from_function
from gradlab.systems.differences import certified_jacobian
from gradlab.systems.learned import LearnedSystem
from gradlab.tasks import Task
from tests.checks.planted_faults import (
    DISCOUNT,
    Linear,
    Quadratic,
    only,
    results,
    step,
    task,
)


def test_a_sound_measurement_passes_every_check():
    system = from_function(step, state_dim=2, action_dim=1)
    found = results(system, critic=Quadratic(4.0))
    assert failed(found) == ()
    assert {each.code for each in found} == {
        "premises_hold", "jacobians", "actions_clipped", "gradients_finite", "chain_growth",
        "theta_alone", "theta_counted", "float32", "starts_carry",
    }  # fmt: skip


class Wrong:
    """Some system with one of its Jacobian blocks made wrong."""

    state_dim, noise_dim, differentiable = 2, 0, True

    def __init__(self, spoil, actions=1):
        self.inner, self.spoil, self.action_dim = from_function(step, 2, actions), spoil, actions

    def step(self, state, action, noise=None):
        return self.inner.step(state, action, noise)

    def linearize(self, state, action, noise=None):
        return self.spoil(self.inner.linearize(state, action, noise))

    def sample_noise(self, n, generator, dtype=torch.float64):
        return torch.zeros(n, 0, dtype=dtype)


@pytest.mark.parametrize(
    ("block", "label"), [("A", "∂f/∂s"), ("B", "∂f/∂a"), ("r_s", "∂r/∂s"), ("r_a", "∂r/∂a")]
)
def test_a_wrong_derivative_is_caught_in_its_block(block, label):
    wrong = Wrong(lambda out: replace(out, **{block: 1.01 * getattr(out, block)}))
    found = only(results(wrong), "jacobians_wrong")
    assert (found.at, found.value) == (label, found.n)


@pytest.mark.parametrize(("block", "label"), [("", ""), ("B", "∂f/∂a"), ("r_s", "∂r/∂s")])
def test_a_step_in_float32_is_told_from_a_wrong_derivative(block, label):
    def single(s, a):
        after, reward = step(s.float(), a.float())
        return after.to(s), reward.to(s)

    system = Wrong(lambda out: replace(out, **{block: 1.05 * getattr(out, block)} if block else {}))
    system.inner = from_function(single, 2, 1)
    found = failed(results(system, critic=Quadratic(4.0)))
    assert bool(found) == bool(block)
    if block:
        assert only(found, "jacobians_wrong").at == label


class Edge(Linear):
    """Just inside of a limit of 1, nearer than differences step."""

    def forward(self, state):
        return 1 - 1e-11 * torch.sigmoid(super().forward(state))


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_the_slope_of_one_side_of_a_clip_is_a_derivative_and_another_one_is_not(factor):
    def clipped(s, a):
        after, reward = step(s, a.clamp(-1, 1))
        return after, reward - 0.6 * a.clamp(-1, 1)[:, 0]

    wrong = Wrong(lambda out: replace(out, r_a=factor * out.r_a))
    wrong.inner = from_function(clipped, 2, 1)
    codes = ("jacobians_wrong", "jacobians_kinked", "simulator_wrong")
    assert bool(failed(results(wrong, policy=Edge()), *codes)) == (factor > 1)


def test_a_wrong_derivative_moves_theta_where_it_should_not_be():
    wrong = Wrong(lambda out: replace(out, r_a=out.r_a + 1.0))
    assert only(results(wrong), "theta_counted").value > 0.1


@pytest.mark.slow
def test_a_dead_control_is_told_from_a_vanishing_one():
    found = results(from_function(step, 2, 2))
    assert only(found, "action_dead").subject == "action 1"
    assert not failed(found, "action_idle")  # the reward still sees it

    def faint(s, a):
        after, reward = step(s, a)
        return after + 1e-14 * a[:, 1:], reward

    found = results(from_function(faint, 2, 2))
    assert 0 < only(found, "action_faint").value < 1e-12
    assert not failed(found, "action_dead")


def test_an_action_without_effect_on_any_reward_is_named():
    def idle(s, a):
        after, _ = step(s, a[:, :1])
        return after, -(s**2).sum(1) - 0.1 * a[:, 0] ** 2

    found = results(from_function(idle, 2, 2), action_names=("steer", "horn"))
    idle = only(found, "action_idle")
    assert (idle.subject, idle.value) == ("horn (action 1)", 6)
    assert only(found, "action_dead").subject == "horn (action 1)"


def test_derivatives_that_are_not_finite_are_counted_and_located():
    """Only one start gets to where the derivative of the second coordinate is NaN."""

    def spoil(out):
        rows = torch.where(out.r_s[:, 0] / -2 > 50, torch.nan, 1.0)
        return replace(out, A=torch.stack([out.A[:, 0], out.A[:, 1] * rows[:, None]], 1))

    starts = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    starts[17, 0] = 55.0
    found = gradlab.measure(task(Wrong(spoil)), Linear(), Quadratic(), horizon=4, starts=starts)
    one = only(found.sanity, "gradients_lost")
    assert (one.subject, one.value, one.n) == ("true_dynamics", 1, 64)
    assert one.at.endswith("row 17: derivatives of coordinate 1 at step 0")


def test_gradients_that_are_exactly_zero_are_counted():
    def clipped(s, a):
        return step(s, a.clamp(-0.1, 0.1))

    class Clipped(Quadratic):
        def forward(self, state, action):
            return super().forward(state, action.clamp(-0.1, 0.1))

    system = from_function(clipped, 2, 1)
    found = results(system, Linear(-5.0), Clipped(), action_limit=(0.1,))
    assert failed(found, "gradients_zero")[0].value > 0
    assert saturated(found).subject == "action 0" and 0.5 <= saturated(found).value <= 1


@pytest.mark.parametrize("gain", [100.0, 0.1])
def test_a_policy_at_the_limits_of_its_own_tanh_is_pointed_out(gain):
    """Also where the task has no limit: its updates hardly moved the return, and nothing told."""

    class Bent(Linear):
        def forward(self, state):
            return 1.5 * torch.tanh(super().forward(state))

    assert bool(saturated(results(from_function(step, 2, 1), Bent(gain)))) == (gain > 1)


@pytest.mark.slow
def test_episodes_that_end_at_once_are_pointed_out_under_mask():
    def near(s):
        return s.abs().amax(dim=1) < 0.3

    system = from_function(step, 2, 1, alive=near)
    assert only(results(system, termination="mask"), "episodes_short").value > 0.25
    assert not failed(results(system), "episodes_short")


def test_the_users_policy_is_left_bit_for_bit_with_a_graph_that_still_works():
    policy, critic = Linear(), Quadratic()
    before = policy.layer.weight.detach().clone()
    loss = policy(torch.ones(1, 2)).square().sum()
    gradlab.measure(task(from_function(step, 2, 1)), policy, critic, horizon=3, starts=16)
    loss.backward()
    assert torch.equal(policy.layer.weight, before)
    assert policy.layer.weight.grad is not None and critic.size.grad is None


def test_a_check_that_cannot_run_is_a_finding_and_stops_nothing(monkeypatch):
    monkeypatch.setattr(import_module("gradlab.checks.jacobians"), "STATES", 95)

    class Fragile(Wrong):
        def step(self, state, action, noise=None):
            if len(state) == 95 * 6:  # only the differences ask for so many rows
                raise RuntimeError("too many rows")
            return super().step(state, action, noise)

    found = only(results(Fragile(lambda out: out)), "check_crashed")
    assert (found.subject, found.at) == ("Jacobians", "too many rows")


@pytest.mark.slow
def test_soft_gradients_are_checked_without_their_log_density_and_with_their_entropy_term():
    system = from_function(step, 2, 1)
    torch.manual_seed(0)  # of ten drawn policies, two have a score with a heavy tail
    policy = GaussianPolicy(2, 1, hidden=(8,)).double()
    tail = gradlab.Tail(3, Quadratic(), DISCOUNT)
    for entropy in (0.1, 1e6):
        soft = {"soft": gradlab.Estimator(system, system, "all", tail, entropy=entropy)}
        found = gradlab.measure(task(system), policy, None, soft, horizon=3, starts=32).sanity
        assert {each.subject for each in failed(found)} == ({"entropy"} if entropy > 1 else set())


def test_a_critic_or_simulator_that_holds_the_policys_theta_is_a_leak():
    policy = Linear()

    class Sharing(Quadratic):
        def __init__(self):
            super().__init__()
            self.policy = policy

        def forward(self, state, action):
            own = self.policy(state.to(self.policy.layer.weight)).to(state)
            return super().forward(state, action - own)

    before = policy.layer.weight.detach().clone()
    found = results(from_function(step, 2, 1), policy, Sharing())
    assert only(found, "theta_leaks").subject == "critic 1"
    assert only(found, "theta_shared").value == 1
    assert torch.equal(policy.layer.weight, before)

    def closed(s, a):
        with torch.no_grad():
            own = policy(s.float()).double()
        return step(s, a + 0.1 * own.to(a))

    assert only(results(from_function(closed, 2, 1), policy), "theta_leaks").subject == "simulator"


def test_a_chaotic_chain_is_precision_limited_and_an_easy_one_is_not():
    def chaotic(s, a):
        x = 3.99 * s * (1 - s)
        return (x + 1e-3 * a).clamp(0.0, 1.0), -(s**2).sum(1)

    def inside(n, generator):
        return torch.rand(n, 2, generator=generator, dtype=torch.float64)

    hard = Task("chaos", from_function(chaotic, 2, 1), None, inside, DISCOUNT, 40)
    found = gradlab.measure(hard, Linear(), Quadratic(), starts=64, judges=4, rehearse=False)
    assert only(found.sanity, "float32").subject == "true_dynamics"
    assert not failed(results(from_function(step, 2, 1)), "float32")


def test_an_exploding_chain_says_from_which_step_on():
    eye = torch.eye(2, dtype=torch.float64)
    B = torch.ones(2, 1, dtype=torch.float64)
    found = results(LinearQuadratic(1e4 * eye, B, eye, eye[:1, :1], 0 * eye), horizon=12)
    grown = only(found, "chain_overflow")
    assert (grown.value, grown.threshold) == (11, 3.4e38)  # √2 · 10^{4 (t − 1)}


def test_a_critic_beyond_any_return_or_that_drowns_the_rewards_is_named():
    found = only(results(from_function(step, 2, 1), critic=Quadratic(1e4)), "critic_beyond")
    # Rewards that grow after the measured paths are no fault of a critic that knows them.
    size = 2e4 * found.threshold / found.value
    above = results(from_function(step, 2, 1), critic=Quadratic(size))
    assert not failed(above, "critic_beyond")
    found = results(from_function(step, 2, 1), critic=Quadratic(1e5))
    assert only(found, "term_drowns").subject == "critic"
    found = results(from_function(step, 2, 1), critic=Quadratic(1e-6))
    assert only(found, "term_drowns").subject == "reward sum"


def test_a_critic_that_damping_alone_makes_small_asks_for_no_attention():
    eye, B = torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    world = LinearQuadratic(0.5 * eye, B, eye, eye[:1, :1], 0 * eye)
    assert not failed(results(world, critic=Quadratic(1.0), horizon=12), "term_drowns")


FREE = np.array([-np.inf]), np.array([np.inf])
HEIGHT = 1e-2
PLACE = 0.25


class Step:
    """s' = 0.8 s + 0.1 a, and a step of HEIGHT where s > PLACE; Jacobians by differences."""

    state_dim = action_dim = 1
    noise_dim = 0
    differentiable = False

    def step(self, state, action, noise=None):
        after = torch.from_numpy(self._step(state.numpy(), action.numpy()))
        reward = -(state**2)[:, 0]
        return Transition(after, reward, torch.ones(len(state), dtype=torch.bool))

    def linearize(self, state, action, noise=None):
        found = certified_jacobian(self._step, state.numpy(), action.numpy(), *FREE, 1e-6)
        exact = Certificate.exact(state).error
        certificate = Certificate(torch.from_numpy(found.flags), exact)
        A, B = torch.from_numpy(found.A), torch.from_numpy(found.B)
        return Linearization(A, B, -2 * state, 0 * action, certificate)

    def sample_noise(self, n, generator, dtype=torch.float64):
        return torch.zeros(n, 0, dtype=dtype)

    @staticmethod
    def _step(s, a):
        return np.asarray(0.8 * s + 0.1 * a + HEIGHT * (s > PLACE))


def starts(place):
    """32 starts that never come to the step again, some of them at `place`."""
    s = torch.linspace(-1, 0.2, 32, dtype=torch.float64)[:, None]
    s[: len(place), 0] = place
    return s


def result(place):
    system = Step()
    made = Task("planted", system, None, lambda n, g: starts(place)[:n], 0.9, 4)
    policy = nn.Linear(1, 1).double()
    nn.init.zeros_(policy.weight), nn.init.zeros_(policy.bias)
    found = gradlab.measure(made, policy, Quadratic(), horizon=4, starts=starts(place)).sanity
    codes = ("jacobians_certified", "jacobians_flagged")
    return next(e for e in found if e.code in codes and e.subject == "true_dynamics")


def test_a_jump_inside_every_stencil_is_counted_and_fails_the_check():
    on_it = PLACE + torch.tensor([0.0, 1e-15], dtype=torch.float64)  # different starts
    found = result(on_it)
    assert (found.code, found.n, found.at) == ("jacobians_flagged", 32, "step 0")
    assert found.value == 2 / 32


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 1e-3])
def test_a_jump_that_a_smaller_step_does_not_reach_is_none(distance):
    found = result(PLACE - distance * torch.tensor([1.0, 1.01], dtype=torch.float64))
    assert (found.code, found.n) == ("jacobians_certified", 32)


def moved(s, a):
    return 0.9 * s + 0.1 * a, -(s**2).sum(dim=1) - (a**2).sum(dim=1)


def draws(n, generator):
    return 1 + 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def policy():
    made = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(made.weight)
    made.weight.data *= -0.5
    return made


def named_task(alive=None, prior=None):
    names = ("place", "speed")
    system = from_function(moved, 2, 2, alive=alive)
    return Task("planted", system, prior, draws, DISCOUNT, 3, state_names=names)


def results_of(of, termination="mask", starts=64, **rest):
    profile = gradlab.measure(
        of, policy(), Quadratic(), horizon=2, starts=starts, termination=termination, **rest
    )
    return {each.code: each for each in profile.sanity}


def clocked(end):
    """The second coordinate counts steps, and ends the episode at `end`, whatever the policy."""

    def ticking(s, a):
        after, reward = moved(s, a)
        return torch.stack([after[:, 0], s[:, 1] + 1], dim=1), reward + s[:, 1] ** 2

    def begin(n, generator):
        return torch.stack([draws(n, generator)[:, 0], torch.zeros(n).double()], dim=1)

    system = from_function(ticking, 2, 2, alive=lambda s: s[:, 1] < end)
    return Task("planted", system, None, begin, DISCOUNT, 3)


@pytest.mark.slow
def test_visited_states_past_an_end_are_counted_under_mask_alone():
    found = results_of(clocked(5))["states_alive"]
    assert (found.decision, found.n, found.at) == ("pass", 64 * 8, "64 of 64")
    assert found.value / 512 == pytest.approx(1 - DISCOUNT**5, abs=0.05)
    assert "states_alive" not in results_of(clocked(5), termination="ignore")


@pytest.mark.slow
def test_a_policy_that_leaves_early_fails_the_check_and_one_that_leaves_at_once_is_refused():
    early = replace(clocked(1), discount=0.95)
    found = results_of(early, starts=256)["states_alive"]
    assert (found.decision, found.n) == ("fail", 2048)
    assert found.value / 2048 == pytest.approx(0.05, abs=0.02)
    with pytest.raises(InputError, match=r"of 32 visited states are alive, in [0-3] of 4 groups"):
        results_of(replace(early, discount=0.98), starts=4)
    with pytest.raises(InputError, match=r"of 8 visited states are alive"):
        results_of(replace(early, discount=0.98), starts=8, law="visited", truth="matched")


def test_groups_count_once_and_zero_weights_are_not_alive():
    weight = torch.tensor([1.0, 0, 0, 2, 0, 0], dtype=torch.float64)
    at = Starts(torch.zeros(6, 2), weight, torch.tensor([0, 0, 1, 2, 2, 3]))
    assert alive_counts(at) == (2, 2, 4)
    with pytest.raises(InputError, match="2 of 6 visited states are alive, in 2 of 4 groups"):
        check_alive(at)


def learned(center=(1.0, 1.0), spread=0.5, seed=0):
    """A model of states around `center`, actions around −center/2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ensemble = GaussianEnsemble(2, 2, 2, (4,), reward=True).double()
    mean = torch.tensor([*center, -0.5 * center[0], -0.5 * center[1]], dtype=torch.float64)
    std = torch.tensor([spread] * 4, dtype=torch.float64)
    outputs = ensemble.target_mean.shape[-1]
    ensemble.set_normalisers(mean, std, torch.zeros(outputs), torch.ones(outputs))
    return LearnedSystem(ensemble)


@pytest.mark.slow
def test_states_of_another_policy_than_the_datas_are_counted_with_the_furthest_coordinate():
    def seen(model, **rest):
        found = results_of(named_task(prior=model), "ignore", **rest)["states_seen"]
        assert found.subject == "prior model" and (found.n == 512 or rest)
        return found.decision, found.value, found.at

    assert seen(learned())[:2] == ("pass", 0)
    assert seen(learned((1.0, 9.0))) == ("fail", 1, "speed")
    # Visited states go down to 0: those below 1 − 5 · 0.1 are unseen, some of the first steps not.
    decision, share, _ = seen(learned(spread=0.1))
    assert decision == "fail" and 0.3 < share < 0.9
    assert seen(learned(spread=0.1), law="start")[0] == "pass"


@pytest.mark.slow
def test_only_states_that_are_alive_and_models_that_know_their_data_are_judged():
    kept = results_of(named_task(lambda s: s[:, 0] > 0.6, learned(spread=0.1)), starts=256)
    assert kept["states_seen"].decision == "pass"
    fresh = GaussianEnsemble(2, 2, 2, (4,), reward=True).double()
    assert "states_seen" not in results_of(named_task(prior=LearnedSystem(fresh)), "ignore")
