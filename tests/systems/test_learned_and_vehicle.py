"""A learned ensemble in the place of a simulator or a prior. Laws: test_system_laws.py.

The vehicle against a scalar program written from MPG's equations 15-17, and its edges.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.setting import as_starts
from gradlab.networks import checkpoint
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems import LearnedSystem, VehicleModel, VehicleSimulator
from gradlab.systems.vehicle import PUBLISHED_CODE, TABLE3, alive, wrap_angle
from gradlab.tasks import TASKS, linear_quadratic, with_learned_prior
from tests.gradients.worlds import reference_gradients
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
    with pytest.warns(UserWarning, match=r"rewards of shape \[N, 1\] are taken as \[N\]"):
        column = LearnedSystem(system.ensemble, lambda *given: rated(*given)[:, None])
        assert torch.equal(column.step(STATE, ACTION).reward, system.step(STATE, ACTION).reward)
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
    with pytest.raises(InputError, match="what alive returns"):
        wrong.step(STATE, ACTION)


def test_noise_is_inferred_for_the_likeliest_member():
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
    torch.testing.assert_close(system.step(STATE, ACTION, inferred).state, after)


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
            r"parameter network.linear.1.weight is not finite in members \[2\]",
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
    system = LearnedSystem(model(), lambda s, a, after: after[:, :2])
    with pytest.raises(InputError, match=r"reward returned \[40, 2\], expected \[40\]"):
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


TABLE = {"Cf": -88000, "Cr": -94000, "a": 1.14, "b": 1.40, "m": 1500, "Iz": 2420}
CODE = {"Cf": -128915.5, "Cr": -85943.6, "a": 1.06, "b": 1.85, "m": 1412, "Iz": 1536.7}
SETS = pytest.mark.parametrize(
    ("numbers", "parameters"), [(TABLE, TABLE3), (CODE, PUBLISHED_CODE)], ids=["table3", "code"]
)


def path(x: float) -> tuple[float, float]:
    y = (
        7.5 * math.sin(2 * math.pi * x / 200)
        + 2.5 * math.sin(2 * math.pi * x / 300)
        - 5 * math.sin(2 * math.pi * x / 400)
    )
    slope = (
        7.5 * 2 * math.pi / 200 * math.cos(2 * math.pi * x / 200)
        + 2.5 * 2 * math.pi / 300 * math.cos(2 * math.pi * x / 300)
        - 5 * 2 * math.pi / 400 * math.cos(2 * math.pi * x / 400)
    )
    return y, math.atan(slope)


def velocities(p: dict[str, float], T: float, u: float, v: float, r: float, d: float, acc: float):
    Cf, Cr, a, b, m, Iz = (p[name] for name in ("Cf", "Cr", "a", "b", "m", "Iz"))
    return (
        u + T * (acc + v * r),
        (m * v * u + T * (a * Cf - b * Cr) * r - T * Cf * d * u - T * m * u**2 * r)
        / (m * u - T * (Cf + Cr)),
        (-Iz * r * u - T * (a * Cf - b * Cr) * v + T * a * Cf * d * u)
        / (T * (a**2 * Cf + b**2 * Cr) - Iz * u),
    )


def into_half_open(angle: float) -> float:
    while angle > math.pi:
        angle -= 2 * math.pi
    while angle <= -math.pi:
        angle += 2 * math.pi
    return angle


def simulate(p: dict[str, float], state: list[float], action: list[float]) -> list[float]:
    T = 1 / 200
    du, v, r, dy, dphi, x = state
    d = min(max(action[0], -1.2 * math.pi / 9), 1.2 * math.pi / 9)
    acc = min(max(action[1], -3), 3)
    u, y, phi = du + 20, dy + path(x)[0], dphi + path(x)[1]
    for _ in range(20):
        new_u, new_v, new_r = velocities(p, T, u, v, r, d, acc)
        phi = phi + T * r
        y = y + T * (u * math.sin(phi) + v * math.cos(phi))
        x = x + T * (u * math.cos(phi) - v * math.sin(phi))
        u, v, r = min(max(new_u, 1), 35), new_v, new_r
        dy, dphi = y - path(x)[0], into_half_open(phi - path(x)[1])
        phi = into_half_open(phi)
        if x > 1200:
            x -= 1200
        if x <= 0:
            x += 1200
    return [u - 20, v, r, dy, dphi, x]


def predict(p: dict[str, float], state: list[float], action: list[float], xi: float) -> list[float]:
    T = 0.1
    du, v, r, y, phi, x = state
    u = du + 20
    new_u, new_v, new_r = velocities(p, T, u, v, r, *action)
    y = y + T * (u * math.sin(phi) + v * math.cos(phi)) + 0.5 + 0.01 * xi
    x = x + T * (u * math.cos(phi) - v * math.sin(phi))
    return [min(max(new_u, 1), 35) - 20, new_v, new_r, y, into_half_open(phi + T * r), x]


def inputs() -> tuple[Tensor, Tensor]:
    rng, n = np.random.default_rng(0), 300
    columns = [
        rng.uniform(-19, 15, n),
        rng.normal(0, 2, n),
        rng.normal(0, 0.5, n),
        rng.normal(0, 2, n),
        rng.uniform(-math.pi, math.pi, n),
        rng.uniform(0, 1200, n),
    ]
    columns[5][:20] = np.linspace(1199, 1200, 20)
    columns[5][20:40] = np.linspace(0.001, 1, 20)
    action = rng.normal(size=(n, 2)) * [0.4, 3.0]
    return torch.tensor(np.stack(columns, 1)), torch.tensor(action)


@SETS
def test_simulator_is_twenty_substeps_along_the_curved_path(numbers, parameters):
    state, action = inputs()
    want = [simulate(numbers, s, a) for s, a in zip(state.tolist(), action.tolist(), strict=True)]
    got = VehicleSimulator(parameters).step(state, action).state
    want = torch.tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-11)
    # The random inputs reach every clip and the seam in both directions.
    assert (got[:, 0] == -19).any() and (got[:, 0] == 15).any()
    assert ((got[:, 5] - state[:, 5]).abs() > 600).sum() > 10


@SETS
def test_model_is_one_step_along_a_straight_path_with_biased_noise(numbers, parameters):
    state, action = inputs()
    model = VehicleModel(parameters)
    noise = model.sample_noise(len(state), torch.Generator().manual_seed(0))
    rows = zip(state.tolist(), action.tolist(), noise[:, 0].tolist(), strict=True)
    want = torch.tensor([predict(numbers, s, a, xi) for s, a, xi in rows], dtype=torch.float64)
    torch.testing.assert_close(model.step(state, action, noise).state, want, atol=1e-11, rtol=0)


def test_reward_is_equation_16_of_the_applied_action():
    state = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64)
    action = torch.tensor([[1.0, 10.0]], dtype=torch.float64)
    before = 0.01 * 1 + 0.04 * 16 + 0.1 * 25 + 0.02 * 9
    clipped = 5 * (1.2 * math.pi / 9) ** 2 + 0.05 * 9
    assert VehicleSimulator().step(state, action).reward.item() == pytest.approx(-before - clipped)
    assert VehicleModel().step(state, action).reward.item() == pytest.approx(-before - 5 - 5)


def test_beyond_the_actuator_nothing_depends_on_the_simulators_action():
    state, action = inputs()
    jacobian = VehicleSimulator().linearize(state, torch.full_like(action, 4.0))
    assert not jacobian.B.any() and not jacobian.r_a.any()
    assert VehicleModel().linearize(state, torch.full_like(action, 4.0)).B.any()


def test_the_terminal_set_is_the_papers():
    edge = torch.zeros(6, 6, dtype=torch.float64)
    edge[1, 3], edge[2, 4], edge[3, 0], edge[4, 2] = -3.01, 0.79, -18.01, -0.81
    edge[5] = torch.tensor([-18, 9, 0.8, 3, -math.pi / 4, 0], dtype=torch.float64)
    assert alive(edge).tolist() == [True, False, False, False, False, True]


def test_angles_wrap_to_the_half_open_interval():
    angles = torch.tensor([math.pi, -math.pi, 0.3, 3.5, -3.5, 9.5], dtype=torch.float64)
    want = [into_half_open(angle) for angle in angles.tolist()]
    torch.testing.assert_close(wrap_angle(angles), torch.tensor(want, dtype=torch.float64))
    assert wrap_angle(angles)[2] == angles[2]
