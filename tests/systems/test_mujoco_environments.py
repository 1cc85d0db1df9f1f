"""MuJoCo environments against Gymnasium's own steps, to the last bit, and their Jacobians against
differences taken elsewhere."""

import copy
import pickle

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import gradlab.systems.differences as differences
import gradlab.systems.physics as physics
from gradlab.errors import InputError
from gradlab.systems.mujoco import ENVIRONMENTS, Environment, MujocoEnvironment, root_x
from gradlab.systems.physics import Chart
from gradlab.systems.system import BLOCKS, System
from tests.systems.mujoco_states import SYSTEMS, every, visited

EXACT_REWARD = ("InvertedPendulum-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")
# |Δ reward| from positions of the last evaluation instead of those of the next state, the contact
# cost apart: 0.065 of up to 3.1 and 0.0048 of up to 1.3 over 1,000 steps.
STALE_REWARD = {"Ant-v5": 0.1, "Humanoid-v5": 0.01}


def gymnasium_steps(env_id: str, state: Tensor, action: Tensor, at: float = 0.0) -> dict:
    """env.step after reset and set_state, the root's translation at `at`."""
    environment, system = gymnasium.make(env_id).unwrapped, SYSTEMS[env_id]
    nq, root = system.chart.nq, system.chart.root
    rows: dict[str, list] = {"state": [], "reward": [], "terminated": [], "info": []}
    for s, a in zip(system.chart.physical(state.numpy()), action.numpy(), strict=True):
        s[:root] = at
        environment.reset(seed=0)
        environment.set_state(s[:nq], s[nq:])
        _, reward, terminated, _, info = environment.step(a)
        after = np.concatenate([environment.data.qpos[root:], environment.data.qvel])
        for key, value in zip(rows, (after, reward, terminated, info), strict=True):
            rows[key].append(value)
    return {key: np.array(value) if key != "info" else value for key, value in rows.items()}


@every
def test_steps_are_gymnasiums_to_the_last_bit(env_id):
    # A third of the actions are beyond the limits.
    state, action = visited(env_id, 300, scale=1.5)
    want = gymnasium_steps(env_id, state, action)
    system = SYSTEMS[env_id]
    system.step(state.flip(0), action)  # what was simulated before must leave no trace
    got = system.step(state, action)
    assert np.array_equal(got.state.numpy(), want["state"])
    assert np.array_equal(~got.alive.numpy(), want["terminated"])
    if env_id in EXACT_REWARD:
        assert np.array_equal(got.reward.numpy(), want["reward"])


@every
def test_episodes_end_where_gymnasiums_do(env_id):
    """States on both sides of every edge of the healthy ranges, and just beside it."""
    system, generator = SYSTEMS[env_id], torch.Generator().manual_seed(0)
    state, action = visited(env_id, 160)
    edges = [
        (each.first - system.chart.root, edge)
        for each in system.environment.healthy
        for edge in (each.low, each.high)
        if np.isfinite(edge)
    ]
    for k, (column, edge) in enumerate(edges):
        rows = slice(k * 20, k * 20 + 20)
        # The heights and angles themselves; velocities of 100 rad/s stand for the last range.
        column = column if abs(edge) < 50 else system.state_dim - 1
        spread = torch.linspace(-0.05, 0.05, 20, dtype=torch.float64)
        state[rows, column] = edge + spread * (1 if abs(edge) < 50 else 1000)
        state[rows, system.chart.nq - system.chart.root :] *= 0.1 if abs(edge) < 50 else 1.0
    state = state[torch.randperm(len(state), generator=generator)]
    alive = system.step(state, action).alive.numpy()
    assert np.array_equal(~alive, gymnasium_steps(env_id, state, action)["terminated"])
    assert (0 < alive.mean() < 1) == bool(edges)


@pytest.mark.parametrize("env_id", STALE_REWARD)
def test_rewards_of_stale_positions_differ_by_what_is_said(env_id):
    state, action = visited(env_id, 300)
    got = SYSTEMS[env_id].step(state, action).reward.numpy()
    want = gymnasium_steps(env_id, state, action)
    contact = np.array([info["reward_contact"] for info in want["info"]])
    forward = np.array([info["reward_forward"] for info in want["info"]])
    difference = got - (want["reward"] - contact)
    assert 0 < np.abs(difference).max() < STALE_REWARD[env_id]
    assert np.abs(difference).max() < 0.1 * np.abs(forward).max()


@every
def test_a_root_elsewhere_changes_a_step_by_rounding_alone(env_id):
    state, action = visited(env_id, 40)
    got, want = SYSTEMS[env_id].step(state, action), gymnasium_steps(env_id, state, action, at=3.7)
    scale = np.abs(want["state"]).max()
    assert np.abs(got.state.numpy() - want["state"]).max() < 1e-12 * scale
    if env_id in EXACT_REWARD:
        assert got.reward.numpy() == pytest.approx(want["reward"], abs=1e-12)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_chunks_and_neighbours_change_no_bit(env_id, monkeypatch):
    state, action = visited(env_id, 12)
    whole = MujocoEnvironment(ENVIRONMENTS[env_id])
    after, jacobian = whole.step(state, action), whole.linearize(state, action)
    monkeypatch.setattr(physics, "MOST_ROWS", 5)
    monkeypatch.setattr(differences, "MOST_ROWS", 200)
    pieces = MujocoEnvironment(ENVIRONMENTS[env_id])
    assert torch.equal(pieces.step(state, action).state, after.state)
    again = pieces.linearize(state, action)
    for block in BLOCKS:
        assert torch.equal(getattr(again, block), getattr(jacobian, block))
    assert torch.equal(again.certificate.flags, jacobian.certificate.flags)
    one = pieces.linearize(state[3:4], action[3:4])
    torch.testing.assert_close(one.A[0], jacobian.A[3], atol=1e-12, rtol=1e-12)


def test_systems_are_copied_and_sent_to_other_processes():
    system = SYSTEMS["Ant-v5"]
    state, action = visited("Ant-v5", 3)
    assert isinstance(system, System)
    for other in (copy.deepcopy(system), pickle.loads(pickle.dumps(system))):
        assert torch.equal(other.linearize(state, action).A, system.linearize(state, action).A)
    fresh = pickle.loads(pickle.dumps(MujocoEnvironment(ENVIRONMENTS["Ant-v5"])))
    assert torch.equal(fresh.step(state, action).state, system.step(state, action).state)


def test_what_mujoco_cannot_take_is_refused_in_silence(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    system = MujocoEnvironment(ENVIRONMENTS["HalfCheetah-v5"])  # its XML makes MuJoCo warn
    state, action = visited("HalfCheetah-v5", 4)
    for bad in (torch.nan, torch.inf, 1e12):
        for name, column in (("state", 2), ("action", 0)):
            values = {"state": state.clone(), "action": action.clone()}
            values[name][1, column] = bad
            for call in (system.step, system.linearize):
                with pytest.raises(InputError, match=f"{name} row 1: dimension"):
                    call(values["state"], values["action"])
    far = state.clone()
    far[2, 3] = 3.0
    with pytest.raises(InputError, match=r"state row 2: bshin is 3, beyond its limits -0.785 … 0."):
        system.step(far, action)
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_a_quaternion_without_a_rotation_is_refused():
    state, action = visited("Ant-v5", 2)
    state[1, 1:5] = 0.0
    with pytest.raises(InputError, match=r"row 1: the quaternion in columns 1 … 4 has norm 0"):
        SYSTEMS["Ant-v5"].step(state, action)


def test_a_diverging_simulation_ends_its_own_row_in_silence(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for env_id in ("HalfCheetah-v5", "Ant-v5"):
        system = SYSTEMS[env_id]
        state, action = visited(env_id, 6)
        want = system.step(state, action)
        state[4, -3:] = 1e9
        got = system.step(state, action)
        assert not torch.isfinite(got.state[4]).all() and got.reward[4].isnan()
        assert got.alive.tolist() == [bool(x) and i != 4 for i, x in enumerate(want.alive)]
        others = [0, 1, 2, 3, 5]
        assert torch.equal(got.state[others], want.state[others])
    state, action = visited("HalfCheetah-v5", 3)
    state[1, -3:] = 1e9
    assert SYSTEMS["HalfCheetah-v5"].linearize(state, action).certificate.flags[1]
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


MUSCLE = """<mujoco><worldbody><body><joint name="hinge" axis="0 1 0"/><geom size=".1"/></body>
</worldbody><actuator><general joint="hinge" dyntype="filter" dynprm="1"/></actuator></mujoco>"""


class Activated(gymnasium.Env):
    """A body whose actuator has a state of its own, which set_state cannot set."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(MUSCLE)
        self.frame_skip, self._reset_noise_scale = 1, 0.1
        self.init_qpos, self.init_qvel = np.zeros(1), np.zeros(1)
        self.action_space = self.observation_space = gymnasium.spaces.Box(-1, 1, (1,))


def test_environments_that_cannot_be_set_exactly_are_refused():
    gymnasium.register("Activated-v0", entry_point=Activated)

    def system(env_id: str) -> MujocoEnvironment:
        return MujocoEnvironment(Environment(env_id, 0, root_x, 1.0, 0.0, 0.0))

    with pytest.raises(InputError, match="cannot be set exactly, the model has 1 actuator activ"):
        _ = system("Activated-v0").state_dim
    with pytest.raises(InputError, match="CartPole-v1 has no model"):
        _ = system("CartPole-v1").state_dim
    with pytest.raises(InputError, match="Gymnasium cannot make 'Nothing-v7'"):
        _ = system("Nothing-v7").state_dim


# States, physics and tangent space: the maps undo one another and are MuJoCo's own.


BALLS = """<mujoco><worldbody>
<body><freejoint/><geom size=".1"/>
  <body><joint type="ball"/><geom size=".1" pos="0 0 1"/>
    <body><joint type="hinge" axis="0 1 0"/><geom size=".1" pos="0 0 1"/></body></body></body>
</worldbody></mujoco>"""
MODEL = mujoco.MjModel.from_xml_string(BALLS)
CHART = Chart.of(MODEL, root=2)


def points(n: int = 20, seed: int = 0) -> np.ndarray:
    """Physics states with the root at 0; quaternions of any norm."""
    x = np.random.default_rng(seed).normal(size=(n, MODEL.nq + MODEL.nv))
    x[:, :2] = 0
    return x


def unit(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    for column, _ in CHART.turns:
        x[:, column : column + 4] /= np.linalg.norm(x[:, column : column + 4], axis=1)[:, None]
    return x


def tangents(n: int = 20, size: float = 1.0) -> np.ndarray:
    return size * np.random.default_rng(1).normal(size=(n, CHART.tangent_dim))


def test_free_and_ball_joints_hold_the_quaternions():
    assert CHART.turns == ((3, 3), (7, 6))
    assert (CHART.state_dim, CHART.tangent_dim) == (12 - 2 + 10, 18)


def test_moves_are_those_of_mujoco():
    x, delta = unit(points()), tangents()
    moved = CHART.displaced(x, delta)
    for i in range(len(x)):
        q = x[i, :12].copy()
        mujoco.mj_integratePos(MODEL, q, np.concatenate([[0, 0], delta[i, :8]]), 1.0)
        assert moved[i, :12] == pytest.approx(q, abs=1e-14)
        back = np.empty(10)
        mujoco.mj_differentiatePos(MODEL, back, 1.0, x[i, :12], moved[i, :12])
        assert CHART.between(moved, x)[i, :10] == pytest.approx(back, abs=1e-13)
    assert moved[:, 12:] == pytest.approx(x[:, 12:] + delta[:, 8:])


def test_between_undoes_a_move_of_less_than_half_a_turn():
    x, delta = points(), tangents(size=0.5)
    assert CHART.between(CHART.displaced(x, delta), x)[:, 2:] == pytest.approx(delta, abs=1e-13)


def test_drop_undoes_lift_and_lift_after_drop_projects_on_the_sphere():
    x = unit(points())
    E, T = CHART.lift(x), CHART.drop(x)
    assert pytest.approx(np.broadcast_to(np.eye(18), (20, 18, 18)), abs=1e-14) == T @ E
    P = E @ T
    assert pytest.approx(P, abs=1e-14) == P @ P
    for column, _ in CHART.turns:
        radial = np.zeros((20, CHART.state_dim, 1))
        radial[:, column - 2 : column + 2, 0] = x[:, column : column + 4]
        assert np.abs(P @ radial).max() < 1e-14
    assert np.linalg.matrix_rank(P).tolist() == [18] * 20


def test_lift_is_the_derivative_of_a_move_and_drop_that_of_between():
    x, h = unit(points()), 1e-6
    E = CHART.lift(x)
    for k in range(CHART.tangent_dim):
        step = np.zeros((20, CHART.tangent_dim))
        step[:, k] = h
        slope = (CHART.displaced(x, step) - CHART.displaced(x, -step))[:, 2:] / (2 * h)
        assert E[:, :, k] == pytest.approx(slope, abs=1e-9)
    loose = points(seed=2)  # off the sphere: a step normalises what it is given
    T = CHART.drop(loose)
    for k in range(CHART.state_dim):
        step = np.zeros_like(loose)
        step[:, 2 + k] = h
        slope = CHART.between(loose + step, loose - step)[:, 2:] / (2 * h)
        assert T[:, :, k] == pytest.approx(slope, abs=1e-8)
