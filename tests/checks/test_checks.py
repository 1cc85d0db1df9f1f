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
from gradlab.gradients.setting import Starts
from gradlab.gradients.start_laws import alive_counts, check_alive
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.policies import GaussianPolicy
from gradlab.runs.check_results import ALIVE, SEEN, saturated
from gradlab.systems import Certificate, Linearization, LinearQuadratic, Transition, from_function
from gradlab.systems.differences import certified_jacobian
from gradlab.systems.learned import LearnedSystem
from gradlab.tasks import Task
from tests.checks.planted_faults import (
    DISCOUNT,
    Linear,
    Quadratic,
    failed,
    only,
    results,
    step,
    task,
)


def test_a_sound_measurement_passes_every_check():
    system = from_function(step, state_dim=2, action_dim=1)
    found = results(system, critic=Quadratic(4.0))
    assert failed(found) == {}
    names = " ".join(each.check for each in found)
    for check in ("against differences", "finite", "θ leaks", "float32", "scale", "realised"):
        assert check in names


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
    found = only(results(wrong), "against differences")
    assert f"most in {label}" in found.result
    assert "correct linearize" in found.meaning


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
        assert f"most in {label}" in only(found.values(), "against differences").result


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
    names = failed(results(wrong, policy=Edge()))
    assert any("differences" in each or "derivative" in each for each in names) == (factor > 1)


def test_a_wrong_derivative_moves_theta_where_it_should_not_be():
    wrong = Wrong(lambda out: replace(out, r_a=out.r_a + 1.0))
    assert "differs from differences" in only(results(wrong), "sits in the first").result


@pytest.mark.slow
def test_a_dead_control_is_told_from_a_vanishing_one():
    dead = only(results(from_function(step, 2, 2)), "move nothing")
    assert "∂f/∂a of action 1 is exactly 0 in 100% of" in dead.result
    assert "∂r/∂a" not in dead.result  # the reward still sees it

    def faint(s, a):
        after, reward = step(s, a)
        return after + 1e-14 * a[:, 1:], reward

    found = only(results(from_function(faint, 2, 2)), "move nothing")
    assert "action 1 is under 1e-12 of the largest: vanishing" in found.result
    assert "exactly 0" not in found.result


def test_an_action_without_effect_on_any_reward_is_named():
    def idle(s, a):
        after, _ = step(s, a[:, :1])
        return after, -(s**2).sum(1) - 0.1 * a[:, 0] ** 2

    found = results(from_function(idle, 2, 2), action_names=("steer", "horn"))
    assert "horn (action 1) has no effect on any reward within 6 steps" in " ".join(
        each.result for each in failed(found).values()
    )
    assert "and so is ∂r/∂a" in only(found, "move nothing").result


def test_derivatives_that_are_not_finite_are_counted_and_located():
    """Only one start gets to where the derivative of the second coordinate is NaN."""

    def spoil(out):
        rows = torch.where(out.r_s[:, 0] / -2 > 50, torch.nan, 1.0)
        return replace(out, A=torch.stack([out.A[:, 0], out.A[:, 1] * rows[:, None]], 1))

    starts = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    starts[17, 0] = 55.0
    found = gradlab.measure(task(Wrong(spoil)), Linear(), Quadratic(), horizon=4, starts=starts)
    one = only(found.sanity, "finite and non-zero")
    assert "true_dynamics: 1 of 64 groups from h = " in one.result
    assert "first: group 17, row 17: derivatives of coordinate 1 at step 0" in one.result


def test_gradients_that_are_exactly_zero_are_counted():
    def clipped(s, a):
        return step(s, a.clamp(-0.1, 0.1))

    class Clipped(Quadratic):
        def forward(self, state, action):
            return super().forward(state, action.clamp(-0.1, 0.1))

    system = from_function(clipped, 2, 1)
    found = results(system, Linear(-5.0), Clipped(), action_limit=(0.1,))
    assert "exactly 0 at h =" in only(found, "finite and non-zero").result
    share, said = saturated(found).split(" of action 0 sits at its limit and passes hardly any")
    assert (
        50 <= int(share.removesuffix("%")) <= 100 and "last layer (weights and bias) by 10" in said
    )


@pytest.mark.parametrize("gain", [100.0, 0.1])
def test_a_policy_at_the_limits_of_its_own_tanh_is_pointed_out(gain):
    """Also where the task has no limit: its updates hardly moved the return, and nothing told."""

    class Bent(Linear):
        def forward(self, state):
            return 1.5 * torch.tanh(super().forward(state))

    said = saturated(results(from_function(step, 2, 1), Bent(gain)))
    assert ("last layer (weights and bias) by 10" in said) == (gain > 1)


@pytest.mark.slow
def test_episodes_that_end_at_once_are_pointed_out_under_mask():
    def near(s):
        return s.abs().amax(dim=1) < 0.3

    system = from_function(step, 2, 1, alive=near)
    assert "at the first" in only(results(system, termination="mask"), "realised").result
    assert not [each for each in failed(results(system)) if "realised" in each]


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

    found = only(results(Fragile(lambda out: out)), "Jacobians")
    assert "could not be tried: too many rows" in found.result


@pytest.mark.slow
def test_soft_gradients_are_checked_without_their_log_density_and_with_their_entropy_term():
    system = from_function(step, 2, 1)
    torch.manual_seed(0)  # of ten drawn policies, two have a score with a heavy tail
    policy = GaussianPolicy(2, 1, hidden=(8,)).double()
    tail = gradlab.Tail(3, Quadratic(), DISCOUNT)
    soft = {"soft": gradlab.Estimator(system, system, "all", tail, entropy=0.1)}
    found = gradlab.measure(task(system), policy, None, soft, horizon=3, starts=32).sanity
    assert found is not None and failed(found) == {}
    terms = next(each for each in found if "scale of the terms" in each.check)
    assert "entropy" in terms.result and "reward sum" in terms.result
    assert "could not be tried" not in " ".join(each.result for each in found)


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
    found = only(results(from_function(step, 2, 1), policy, Sharing()), "leaks")
    assert "critic 1 changes" in found.result
    assert "1 tensors are shared" in found.result
    assert torch.equal(policy.layer.weight, before)

    def closed(s, a):
        with torch.no_grad():
            own = policy(s.float()).double()
        return step(s, a + 0.1 * own.to(a))

    found = only(results(from_function(closed, 2, 1), policy), "leaks")
    assert "simulator changes when the policy's θ is moved" in found.result


def test_a_chaotic_chain_is_precision_limited_and_an_easy_one_is_not():
    def chaotic(s, a):
        x = 3.99 * s * (1 - s)
        return (x + 1e-3 * a).clamp(0.0, 1.0), -(s**2).sum(1)

    def inside(n, generator):
        return torch.rand(n, 2, generator=generator, dtype=torch.float64)

    hard = Task("chaos", from_function(chaotic, 2, 1), None, inside, DISCOUNT, 40)
    found = gradlab.measure(hard, Linear(), Quadratic(), starts=64, judges=4)
    limited = only(found.sanity, "float32 against float64, true_dynamics at")
    assert "precision-limited: yes" in limited.meaning
    easy = results(from_function(step, 2, 1))
    assert not [each for each in failed(easy) if "float32" in each]


def test_an_exploding_chain_says_from_which_step_on():
    eye = torch.eye(2, dtype=torch.float64)
    B = torch.ones(2, 1, dtype=torch.float64)
    found = results(LinearQuadratic(1e4 * eye, B, eye, eye[:1, :1], 0 * eye), horizon=12)
    text = only(found, "sensitivities").result
    assert "beyond the range of float32 from t = 11 on" in text  # √2 · 10^{4 (t − 1)}


def test_a_critic_beyond_any_return_or_that_drowns_the_rewards_is_named():
    found = only(results(from_function(step, 2, 1), critic=Quadratic(1e4)), "size of the critic")
    assert "beyond any return" in found.meaning
    # Rewards that grow after the measured paths are no fault of a critic that knows them.
    limit = float(found.result.split("= ")[1].split(" ")[0])
    largest = float(found.result.split("|Q| ")[1].split(",")[0])
    above = results(from_function(step, 2, 1), critic=Quadratic(2e4 * limit / largest))
    assert not any("size of the critic" in each for each in failed(above))
    found = results(from_function(step, 2, 1), critic=Quadratic(1e5))
    assert "critic drowns everything else" in only(found, "scale of the terms").meaning
    found = results(from_function(step, 2, 1), critic=Quadratic(1e-6))
    assert "reward sum drowns everything else" in only(found, "scale of the terms").meaning


def test_a_critic_that_damping_alone_makes_small_asks_for_no_attention():
    eye, B = torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    world = LinearQuadratic(0.5 * eye, B, eye, eye[:1, :1], 0 * eye)
    found = results(world, critic=Quadratic(1.0), horizon=12)
    assert not [name for name in failed(found) if "scale of the terms" in name]
    (mine, *_) = (each for each in found if "scale of the terms" in each.check)
    assert "reward sum is the largest term at h = 12" in mine.meaning


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
    wanted = "certified Jacobians of true_dynamics"
    return next(each for each in found if each.check == wanted)


def test_a_jump_inside_every_stencil_is_counted_and_fails_the_check():
    on_it = PLACE + torch.tensor([0.0, 1e-15], dtype=torch.float64)  # different starts
    found = result(on_it)
    assert not found.passed
    assert found.result.startswith("1.56% of 128 Jacobians flagged (2), in 2 of 32 samples")
    assert "first at step 0" in found.result
    assert "one may outweigh all other samples" in found.meaning


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 1e-3])
def test_a_jump_that_a_smaller_step_does_not_reach_is_none(distance):
    found = result(PLACE - distance * torch.tensor([1.0, 1.01], dtype=torch.float64))
    assert found.passed and found.result.startswith("0.00% of 128 Jacobians flagged (0)")


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
    return {each.check: each for each in profile.sanity}


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
    found = results_of(clocked(5))[ALIVE]
    alive = int(found.result.split()[0])
    assert found.passed and f"of {64 * 8} states are alive, in 64 of 64 groups" in found.result
    assert alive / 512 == pytest.approx(1 - DISCOUNT**5, abs=0.05)
    assert ALIVE not in results_of(clocked(5), termination="ignore")


@pytest.mark.slow
def test_a_policy_that_leaves_early_fails_the_check_and_one_that_leaves_at_once_is_refused():
    early = replace(clocked(1), discount=0.95)
    found = results_of(early, starts=256)[ALIVE]
    assert not found.passed and "of 2048 states are alive" in found.result
    assert int(found.result.split()[0]) / 2048 == pytest.approx(0.05, abs=0.02)
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
    seen = results_of(named_task(prior=learned()), "ignore")[f"{SEEN}, prior model"]
    assert seen.passed and seen.result.startswith("0.0% of 512 states")
    far = results_of(named_task(prior=learned((1.0, 9.0))), "ignore")[f"{SEEN}, prior model"]
    assert not far.passed and far.result.startswith("100.0% of 512 states")
    assert "furthest: speed, " in far.result
    # Visited states go down to 0: those below 1 − 5 · 0.1 are unseen, some of the first steps not.
    part = results_of(named_task(prior=learned(spread=0.1)), "ignore")[f"{SEEN}, prior model"]
    share = float(part.result.split("%")[0])
    assert not part.passed and 30 < share < 90
    at_starts = results_of(named_task(prior=learned(spread=0.1)), "ignore", law="start")
    assert at_starts[f"{SEEN}, prior model"].passed


@pytest.mark.slow
def test_only_states_that_are_alive_and_models_that_know_their_data_are_judged():
    kept = results_of(named_task(lambda s: s[:, 0] > 0.6, learned(spread=0.1)), starts=256)
    assert kept[f"{SEEN}, prior model"].passed
    fresh = GaussianEnsemble(2, 2, 2, (4,), reward=True).double()
    assert not [name for name in results_of(named_task(prior=LearnedSystem(fresh)), "ignore")
                if name.startswith(SEEN)]  # fmt: skip
