"""Jacobians of MuJoCo environments against differences of the step, and at kinks."""

import copy
from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import gradlab.systems.physics as physics
from gradlab import tasks
from gradlab.systems.mujoco import ENVIRONMENTS, MujocoEnvironment, mass_centre_x
from gradlab.systems.system import BLOCKS
from tests.systems.mujoco_states import SYSTEMS, every, visited


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
