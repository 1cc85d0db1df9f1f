"""MuJoCo environments against Gymnasium's own steps, to the last bit.

Their Jacobians against differences taken elsewhere, against differences of the step, and at kinks.
"""

import copy
import pickle
from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import gradlab.systems.differences as differences
import gradlab.systems.physics as physics
from gradlab import tasks
from gradlab.errors import InputError
from gradlab.systems.mujoco import (
    ENVIRONMENTS,
    Environment,
    MujocoEnvironment,
    mass_centre_x,
    root_x,
)
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

    with pytest.raises(
        InputError, match="beside positions and velocities, its state holds 1 actuator activ"
    ):
        _ = system("Activated-v0").state_dim
    with pytest.raises(InputError, match="CartPole-v1 has no model"):
        _ = system("CartPole-v1").state_dim
    with pytest.raises(InputError, match="Gymnasium cannot make 'Nothing-v7'"):
        _ = system("Nothing-v7").state_dim


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


def test_differences_are_taken_at_a_sharper_tolerance_than_steps():
    system = MujocoEnvironment(ENVIRONMENTS["Walker2d-v5"])
    assert system._precise.model.opt.tolerance == 1e-12
    assert system.physics.model.opt.tolerance == 1e-8


def five_point(system: MujocoEnvironment, state: Tensor, action: Tensor, h: float) -> np.ndarray:
    """∂(s', r)/∂(s, a) by fourth-order differences in the state's own numbers, one MjData."""
    model = copy.copy(system.physics.model)
    model.opt.tolerance = 1e-12
    data, ds = mujoco.MjData(model), system.state_dim
    nq, root, row = model.nq, system.chart.root, system.environment

    def step(z: np.ndarray) -> np.ndarray:
        mujoco.mj_resetData(model, data)
        x = np.concatenate([np.zeros(root), z[:ds]])
        data.qpos[:], data.qvel[:], data.ctrl[:] = x[:nq], x[nq:], z[ds:]
        begin = row.position(model, x[None, :nq])[0][0]
        mujoco.mj_step(model, data, nstep=system.physics.frame_skip)
        after = np.concatenate([data.qpos[root:], data.qvel])
        speed = (row.position(model, data.qpos[None])[0][0] - begin) / system.dt
        return np.append(
            after, row.forward_weight * speed - row.control_weight * (z[ds:] ** 2).sum()
        )

    z = torch.cat([state, action]).numpy()
    columns = []
    for axis in np.eye(len(z)):
        near = step(z + h * axis) - step(z - h * axis)
        far = step(z + 2 * h * axis) - step(z - 2 * h * axis)
        columns.append((8 * near - far) / (12 * h))
    return np.stack(columns, 1)


@every
def test_jacobians_are_those_of_the_step_in_every_number_of_the_state(env_id):
    """Along a quaternion's own direction, too, where the step does not change."""
    system, ds = SYSTEMS[env_id], SYSTEMS[env_id].state_dim
    state, action = visited(env_id, 30, scale=0.9)
    rows = slice(7, None, 10 if ds < 20 else 20)  # quaternions' long states take long
    state, action = state[rows], action[rows]
    got = system.linearize(state, action)
    assert not got.certificate.flags.any()
    for i in range(len(state)):
        misses = []
        # A wider stencil may meet a contact that the narrow one does not, never both by chance.
        for h in (3e-6, 3e-7):
            want = five_point(system, state[i], action[i], h)
            blocks = (want[:-1, :ds], want[:-1, ds:], want[-1, :ds], want[-1, ds:])
            sizes = [max(np.abs(block).max(), 1e-6) for block in blocks]
            values = [getattr(got, name)[i].numpy() for name in BLOCKS]
            pairs = zip(values, blocks, sizes, strict=True)
            misses.append([np.abs(value - block).max() / size for value, block, size in pairs])
        assert np.min(misses, axis=0) == pytest.approx(np.zeros(4), abs=1e-6), misses


# Ten steps multiply errors by the growth of the chain.
CHAINS = {
    "InvertedPendulum-v5": 1e-8,
    "Hopper-v5": 1e-7,
    "Walker2d-v5": 1e-6,
    "HalfCheetah-v5": 1e-6,
    "Ant-v5": 1e-6,
    "Humanoid-v5": 1e-6,
}


@pytest.mark.slow
@every
def test_ten_chained_jacobians_are_the_derivative_of_ten_steps(env_id):
    system = SYSTEMS[env_id]
    state, action = visited(env_id, 200, scale=0.5)
    state, action = state[5::20], action[5::20]
    direction = torch.randn(state.shape, generator=torch.Generator().manual_seed(1)).double()
    precise = MujocoEnvironment(ENVIRONMENTS[env_id])
    precise.physics.model.opt.tolerance = physics.LINEARIZE_TOLERANCE
    along, at = direction, state
    stated, flags = torch.zeros(2, len(state)).double().unbind()
    for _ in range(10):
        jacobian = system.linearize(at, action)
        stated = torch.maximum(stated, jacobian.certificate.error["A"])
        flags = torch.maximum(flags, jacobian.certificate.flags.double())
        along = torch.einsum("nij,nj->ni", jacobian.A, along)
        at = precise.step(at, action).state
    best = torch.full((len(state),), torch.inf, dtype=torch.float64)
    for h in (1e-6, 1e-7, 1e-8):
        ahead, behind = state + h * direction, state - h * direction
        for _ in range(10):
            ahead, behind = (precise.step(s, action).state for s in (ahead, behind))
        miss = ((ahead - behind) / (2 * h) - along).norm(dim=1) / along.norm(dim=1)
        best = torch.minimum(best, miss)
    assert flags.sum() <= 3
    # A chain misses at most a few times what its worst certificate admits.
    assert (best <= CHAINS[env_id] + 30 * stated)[flags == 0].all()
    assert best.median() < CHAINS[env_id]


def test_jacobians_are_mujocos_own_chained_over_the_substeps():
    """`mjd_transitionFD` covers one Euler substep: five of them make a HalfCheetah step."""
    system = SYSTEMS["HalfCheetah-v5"]
    state, action = visited("HalfCheetah-v5", 60, scale=0.9)
    state, action = state[5::10], action[5::10]
    linear = system.linearize(state, action)
    model = copy.copy(system.physics.model)
    model.opt.tolerance = 1e-12
    data, nv = mujoco.MjData(model), model.nv
    compared = 0
    for i, x in enumerate(system.chart.physical(state.numpy())):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = x[:nv], x[nv:], action[i]
        whole, by_control = np.eye(2 * nv), np.zeros((2 * nv, model.nu))
        for _ in range(system.physics.frame_skip):
            a, b = np.empty((2 * nv, 2 * nv)), np.empty((2 * nv, model.nu))
            mujoco.mjd_transitionFD(model, data, 1e-7, True, a, b, None, None)
            whole, by_control = a @ whole, a @ by_control + b
            mujoco.mj_step(model, data)
        if linear.certificate.flags[i]:
            continue
        compared += 1
        # The state has no place of the root, on which nothing depends.
        for got, want in ((linear.A[i], whole[1:, 1:]), (linear.B[i], by_control[1:])):
            assert np.abs(got.numpy() - want).max() < 1e-5 * np.abs(want).max()
    assert compared >= 4


def test_a_rewarded_position_that_bends_with_the_body_is_followed_to_the_next_state():
    """Hopper has no quaternion, for which the next state would be asked anyway."""
    row = replace(ENVIRONMENTS["Hopper-v5"], position=mass_centre_x)
    system = MujocoEnvironment(row)
    state, action = visited("Hopper-v5", 40, scale=0.9)
    state, action = state[3::10], action[3::10]
    found, h = system.linearize(state, action), 1e-6
    moves = h * torch.eye(system.state_dim, dtype=torch.float64)
    ends = [
        torch.stack([system.step(state + sign * move, action).reward for move in moves], 1)
        for sign in (1, -1)
    ]
    assert not found.certificate.flags.any()
    torch.testing.assert_close(found.r_s, (ends[0] - ends[1]) / (2 * h), atol=1e-3, rtol=1e-4)


def test_a_policys_view_is_gymnasiums_observation_and_its_clip_is_in_no_jacobian():
    for env_id in ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"):
        system, environment = SYSTEMS[env_id], gymnasium.make(env_id).unwrapped
        state, _ = visited(env_id, 50)
        state[:, -system.physics.model.nu :] *= 3.0
        seen = tasks.view(env_id)(state)
        for s, want in zip(system.chart.physical(state.numpy()), seen.numpy(), strict=True):
            environment.reset(seed=0)
            environment.set_state(s[: system.chart.nq], s[system.chart.nq :])
            assert np.array_equal(environment._get_obs(), want)
        assert (seen != state).any() == (env_id != "HalfCheetah-v5")


def test_at_the_velocity_clip_jacobians_are_those_of_the_unclipped_state():
    system = SYSTEMS["Hopper-v5"]
    state, action = visited("Hopper-v5", 20, scale=0.5)
    state, action = state[15:18], action[15:18]
    state[:, 10] = torch.tensor([10.0, -10.0, 12.0])
    got = system.linearize(state, action)
    for i in np.flatnonzero(~got.certificate.flags.numpy()):
        want = five_point(system, state[i], action[i], 3e-7)[:-1, :11]
        assert np.abs(got.A[i].numpy() - want).max() < 1e-6 * np.abs(want).max()
        assert np.abs(want[:, 10]).max() > 0.1
    assert (~got.certificate.flags).sum() >= 2


def test_at_a_control_limit_the_inside_derivative_is_taken_and_beyond_it_none():
    system = SYSTEMS["Hopper-v5"]
    state, action = visited("Hopper-v5", 40, scale=0.9)
    state, action = state[3::20], action[3::20]
    inside, at, beyond = action.clone(), action.clone(), action.clone()
    inside[:, 0], at[:, 0], beyond[:, 0] = 1 - 1e-5, 1.0, 1.4
    want, got, none = (system.linearize(state, each) for each in (inside, at, beyond))
    assert not (want.certificate.flags | got.certificate.flags | none.certificate.flags).any()
    torch.testing.assert_close(got.B, want.B, atol=1e-4, rtol=1e-3)
    assert want.B[:, :, 0].abs().amax() > 1 and not none.B[:, :, 0].any()
    torch.testing.assert_close(none.B[:, :, 1:], got.B[:, :, 1:], atol=1e-5, rtol=1e-5)
    # Gymnasium's control cost is that of the action as given.
    torch.testing.assert_close(none.r_a[:, 0], -2e-3 * beyond[:, 0])


def touching(system: MujocoEnvironment, state: Tensor, action: Tensor) -> Tensor:
    """The state with its height moved to where the foot just meets the ground in the first
    evaluation of the step, by bisection on the number of contacts."""
    model = system.physics.model
    data = mujoco.MjData(model)

    def contacts(z: float) -> int:
        data.qpos[:], data.qvel[:] = 0.0, 0.0
        data.qpos[1:] = [z, *state[1:5].tolist()]
        mujoco.mj_forward(model, data)
        return int(data.ncon)

    low, high = 0.5, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if contacts(middle) else (low, middle)
    return torch.cat([torch.tensor([(low + high) / 2], dtype=torch.float64), state[1:]])


def test_contact_onset_inside_the_stencil_is_flagged():
    system = SYSTEMS["Hopper-v5"]
    state = torch.zeros(11, dtype=torch.float64)
    state[2:4] = -0.3  # no joint on its limit
    state[6] = -1.0  # falling: the contact's damping makes its onset a jump
    action = torch.zeros(4, 3, dtype=torch.float64)
    at = touching(system, state, action[0])
    rows = at.repeat(4, 1)
    rows[1:, 0] += torch.tensor([1e-9, 5e-8, 1e-4])
    found = system.linearize(rows, action)
    assert found.certificate.flags.tolist() == [True, False, False, False]
    # The second and third were retried at steps too small to reach the ground, and found what is
    # true far above it.
    assert found.certificate.step.tolist() == pytest.approx([1e-7, 1e-10, 1e-8, 1e-7])
    far = found.A[3].expand(2, -1, -1)
    torch.testing.assert_close(found.A[1:3], far, atol=1e-3, rtol=1e-3)
    assert (found.A[0] - far[0]).abs().max() > 1e3


def test_a_joint_limit_inside_the_stencil_is_flagged():
    system = SYSTEMS["Hopper-v5"]
    rows = torch.zeros(3, 11, dtype=torch.float64)
    rows[:, 0], rows[:, 2], rows[:, 3] = 2.0, -0.5, -0.5
    top = np.deg2rad(45.0)
    rows[:, 4] = top - torch.tensor([0.0, 1e-9, 1e-2], dtype=torch.float64)
    rows[:, 10] = torch.tensor([2.0, 2.0, -2.0])
    certificate = system.linearize(rows, torch.zeros(3, 3, dtype=torch.float64)).certificate
    assert certificate.flags.tolist() == [True, False, False]
    assert certificate.step.tolist() == pytest.approx([1e-7, 1e-9, 1e-7])
    rows[2, 4] = top + 0.01
    assert system.beyond_limits(rows).tolist() == [False, False, True]
