"""A learned ensemble in the place of a simulator or a prior. Laws: test_system_laws.py."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.starts import as_starts
from gradlab.networks import checkpoint
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems import LearnedSystem
from gradlab.tasks import TASKS, linear_quadratic, with_learned_prior
from gradlab.truth.oracles import reference_gradients
from tests.systems.ensembles import DA, DS, N, by_jacrev, model, random

STATE, ACTION = random(N, DS), random(N, DA, seed=1)


def noise_of(system: LearnedSystem, n: int = N) -> Tensor:
    return system.sample_noise(n, torch.Generator().manual_seed(3))


def test_noise_chooses_the_member_and_moves_its_mean_by_its_deviations():
    made = model()
    system, found = LearnedSystem(made, elites=(3, 1)), made(STATE, ACTION)
    noise = noise_of(system)
    got = system.step(STATE, ACTION, noise)
    for i in range(N):
        member = 3 if noise[i, -1] < 0.5 else 1
        want = found.mean[member, i] + found.std[member, i] * noise[i, :-1]
        torch.testing.assert_close(torch.cat([got.state[i], got.reward[i, None]]), want)
    chosen = noise[:, -1] < 0.5
    assert 5 < chosen.sum() < N - 5


def test_draws_are_standard_normal_and_the_member_uniform():
    system = LearnedSystem(model(), elites=(0, 2, 3))
    noise = noise_of(system, 30_000)
    assert noise.shape == (30_000, DS + 2) and system.noise_dim == DS + 2
    torch.testing.assert_close(noise[:, :-1].mean(0), torch.zeros(4).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(noise[:, :-1].std(0), torch.ones(4).double(), atol=0.02, rtol=0)
    counts = torch.bincount((noise[:, -1] * 3).long())
    assert ((counts - 10_000).abs() < 300).all()
    narrow = system.sample_noise(7, torch.Generator().manual_seed(3), torch.float32)
    wide = system.sample_noise(7, torch.Generator().manual_seed(3))
    assert torch.equal(narrow, wide.float())


def test_a_member_column_that_rounds_to_one_is_the_last_elite():
    system = LearnedSystem(model())
    noise = torch.zeros(1, system.noise_dim).double()
    ends = [noise.clone().index_fill_(1, torch.tensor([4]), u) for u in (0.99, 1.0)]
    states = [system.step(STATE[:1], ACTION[:1], each).state for each in ends]
    assert torch.equal(*states)
    for wrong in (-0.1, 1.1, float("nan")):
        noise[0, -1] = wrong
        with pytest.raises(InputError, match="noise column 4 chooses the member"):
            system.step(STATE[:1], ACTION[:1], noise)


def test_no_noise_is_the_mean_over_members_and_its_jacobian():
    made = model()
    found, average = made(STATE, ACTION), by_jacrev(made, STATE, ACTION)[0].mean(0)
    system = LearnedSystem(made)
    out, linear = system.step(STATE, ACTION), system.linearize(STATE, ACTION)
    torch.testing.assert_close(out.state, found.mean[..., :DS].mean(0))
    torch.testing.assert_close(out.reward, found.mean[..., DS].mean(0))
    torch.testing.assert_close(torch.cat([linear.A, linear.B], 2), average[:, :DS])
    torch.testing.assert_close(torch.cat([linear.r_s, linear.r_a], 1), average[:, DS])
    elites = LearnedSystem(made, elites=(1, 2)).step(STATE, ACTION)
    torch.testing.assert_close(elites.state, found.mean[1:3, :, :DS].mean(0))


def test_a_reward_function_takes_the_place_of_the_head_and_sees_the_next_state():
    def rated(s: Tensor, a: Tensor, after: Tensor) -> Tensor:
        return after[:, 0] * s[:, 1] - a[:, 1] ** 2

    for head in (True, False):
        system = LearnedSystem(model(reward=head), rated)
        noise = noise_of(system)
        out = system.step(STATE, ACTION, noise)
        assert torch.equal(out.reward, rated(STATE, ACTION, out.state))
        assert system.noise_dim == DS + head + 1
    # One that depends on the action alone, and one on nothing at all.
    alone = LearnedSystem(model(), lambda s, a, after: a[:, 0] ** 2)
    linear = alone.linearize(STATE, ACTION, noise_of(alone))
    assert not linear.r_s.any()
    torch.testing.assert_close(linear.r_a, ACTION * torch.tensor([2.0, 0.0]).double())
    constant = LearnedSystem(model(), lambda s, a, after: torch.ones_like(s[:, 0]))
    assert not constant.linearize(STATE, ACTION).r_s.any()


def test_termination_is_the_tasks():
    system = LearnedSystem(model(), alive=lambda after: after[:, 0] > 0)
    out = system.step(STATE, ACTION, noise_of(system))
    assert torch.equal(out.alive, out.state[:, 0] > 0) and out.alive.any() and not out.alive.all()
    wrong = LearnedSystem(model(), alive=lambda after: after[:, 0])
    with pytest.raises(InputError, match="alive returned"):
        wrong.step(STATE, ACTION)


def test_noise_is_inferred_for_the_likeliest_or_the_given_member():
    made = model()
    system = LearnedSystem(made, elites=(2, 0, 3))
    noise = 0.1 * noise_of(system)
    noise[:, -1] = noise_of(system)[:, -1]
    after = system.step(STATE, ACTION, noise).state
    found = made(STATE, ACTION)
    normal = torch.distributions.Normal(found.mean[..., :DS], found.std[..., :DS])
    density = normal.log_prob(after).sum(2)[list(system.chosen)]
    inferred = system.infer_noise(STATE, ACTION, after)
    assert torch.equal((inferred[:, -1] * 3).long(), density.argmax(0))
    assert ((inferred[:, -1] * 3).long() == (noise[:, -1] * 3).long()).float().mean() > 2 / 3
    assert not inferred[:, DS].any()
    for member in system.chosen:
        given = system.infer_noise(STATE, ACTION, after, member)
        # In the middle of the member's share, where no rounding changes it.
        middle = torch.full((N,), system.chosen.index(member) + 0.5).double()
        torch.testing.assert_close(given[:, -1] * 3, middle)
        torch.testing.assert_close(system.step(STATE, ACTION, given).state, after)
    with pytest.raises(InputError, match=r"member is 1, expected one of \[2, 0, 3\]"):
        system.infer_noise(STATE, ACTION, after, 1)


def test_noise_of_many_transitions_is_inferred_in_blocks(monkeypatch):
    system = LearnedSystem(model())
    after = system.step(STATE, ACTION, noise_of(system)).state
    whole = system.infer_noise(STATE, ACTION, after)
    monkeypatch.setattr("gradlab.systems.learned.ROWS", 7)
    torch.testing.assert_close(system.infer_noise(STATE, ACTION, after), whole)


def test_estimators_differentiate_a_learned_system_as_autograd_does():
    """Own paths, and the simulator's with inferred noise."""
    torch.manual_seed(0)
    prior = LearnedSystem(model(2, 1), elites=(0, 2))
    task = replace(linear_quadratic(), prior=prior)
    policy, critic = Policy(2, 1, (8,)).double(), QCritic(2, 1, (8,)).double()
    starts = random(6, 2)
    for states in (prior, task.simulator):
        for actions in ("first", "all"):
            tail = gradlab.Tail(3, critic, 0.95)
            estimator = gradlab.Estimator(states, prior, actions, tail)
            want = reference_gradients(estimator, policy, as_starts(starts, 2))
            got = estimator.gradients(policy, starts)
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def broken(name: str, value: float, member: int = 2) -> GaussianEnsemble:
    made = model()
    with torch.no_grad():
        made.get_parameter(name)[member, 0, 0] = value
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ensemble": torch.nn.Linear(1, 1)}, "ensemble is a Linear, expected a GaussianEnsemble"),
        ({"ensemble": model(reward=False)}, "the ensemble has no reward head: give reward="),
        ({"elites": ()}, r"elites are \[\], expected different members from 0 to 3"),
        ({"elites": (0, 4)}, r"elites are \[0, 4\]"),
        ({"elites": (1, 1)}, r"elites are \[1, 1\]"),
        (
            {"ensemble": broken("network.linear.1.weight", torch.nan)},
            r"parameter network.linear.1.weight of the ensemble is not finite in members \[2\]",
        ),
        ({"ensemble": broken("high", torch.inf)}, r"parameter high .* members \[2\]"),
    ],
)
def test_a_wrong_learned_system_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        LearnedSystem(**({"ensemble": model()} | arguments))  # type: ignore[arg-type]


def test_a_diverged_member_may_be_left_out():
    made = broken("network.linear.0.weight", torch.nan)
    out = LearnedSystem(made, elites=(0, 1, 3)).step(STATE, ACTION)
    assert torch.isfinite(out.state).all()


def test_a_wrong_reward_shape_is_named():
    system = LearnedSystem(model(), lambda s, a, after: after[:, :1])
    with pytest.raises(InputError, match=r"reward returned \[40, 1\], expected \[40\]"):
        system.step(STATE, ACTION)


def test_a_stored_normaliser_without_scale_is_refused(tmp_path):
    made = model()
    made.input_std[1, 0, 3] = 0.0
    checkpoint.save(made, tmp_path / "model.safetensors")
    again = checkpoint.load(tmp_path / "model.safetensors")
    assert isinstance(again, GaussianEnsemble)
    with pytest.raises(InputError, match="input_std of dimension 3 is 0, expected a positive"):
        LearnedSystem(again)


# Learned systems as the prior of a task.


def test_measure_takes_a_learned_prior_and_leaves_the_random_stream_alone():
    task = replace(linear_quadratic(), prior=LearnedSystem(model(2, 1).float()))
    torch.manual_seed(0)
    policy, critic = Policy(2, 1, ()), QCritic(2, 1, (8,))
    with torch.no_grad():
        policy.network[-1].weight.copy_(torch.tensor([[-1.0, -1.5]]))
        policy.network[-1].bias.zero_()
    before = torch.get_rng_state()
    table = gradlab.measure(task, policy, critic, horizon=1, starts=16, rehearse=False).table()
    assert torch.equal(torch.get_rng_state(), before)
    model_rows = table[(table.estimator == "model") & (table.quantity == "variance")]
    assert (model_rows.value > 0).all() and len(model_rows) == 2


@pytest.mark.parametrize(
    "name",
    ["path_tracking", "inverted_pendulum", "pendulum", "Hopper-v5", "Walker2d-v5", "Humanoid-v5"],
)
def test_a_learned_prior_ends_where_the_task_ends(name):
    """On states that its simulator made, some of them terminal."""
    task = TASKS[name]()
    simulator = task.simulator
    made = GaussianEnsemble(simulator.state_dim, simulator.action_dim, 2, (4,))
    prior = with_learned_prior(task, made, elites=(1,)).prior
    assert isinstance(prior, LearnedSystem) and prior.chosen == (1,)
    state, alive = task.starts(64, torch.Generator().manual_seed(0)), []
    for t in range(25):
        push = 0.4 * random(64, simulator.action_dim, seed=t)
        out = simulator.step(state, push.clamp(-0.4, 0.4))
        state = out.state
        want = task.alive(state) if task.alive else torch.ones(64, dtype=torch.bool)
        assert torch.equal(out.alive, want)
        assert (prior.alive is None) == (task.alive is None)
        alive.append(want)
        state = torch.where(want[:, None], state, task.starts(64, torch.Generator().manual_seed(t)))
    assert torch.stack(alive).any()
    assert name == "pendulum" or not torch.stack(alive).all()
