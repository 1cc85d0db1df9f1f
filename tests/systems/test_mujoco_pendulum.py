"""MuJoCo's pendulum against Gymnasium, to the last bit, and against its analytic twin."""

import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import CartPoleSimulator, MujocoPendulum, Pendulum
from gradlab.systems.closed_form import STENCIL
from gradlab.systems.mujoco_pendulum import pendulum_parameters
from gradlab.tasks import pendulum, task_from_name

ASSETS = Path(gymnasium.__file__).parent / "envs/mujoco/assets/inverted_pendulum.xml"


def inputs(n: int = 320) -> tuple[Tensor, Tensor]:
    """States beyond the stock slider's stop, too, and actions beyond the limit."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(n, 4)) * [0.7, 0.4, 2.0, 3.0]
    return torch.tensor(state), torch.tensor(rng.uniform(-4, 4, (n, 1)))


@pytest.mark.parametrize("slider", ["stock", "wide"])
def test_next_state_is_gymnasiums_to_the_last_bit(slider, tmp_path):
    xml = ASSETS
    if slider == "wide":
        xml = tmp_path / "wide.xml"
        stop, free = 'limited="true" name="slider"', 'limited="false" name="slider"'
        assert stop in ASSETS.read_text()
        xml.write_text(ASSETS.read_text().replace(stop, free))
    environment = gymnasium.make("InvertedPendulum-v5", xml_file=str(xml)).unwrapped
    state, action = inputs()
    want = []
    for s, a in zip(state.numpy(), action.numpy(), strict=True):
        environment.reset(seed=0)
        environment.set_state(s[:2], s[2:])
        want.append(environment.step(a)[0])
    system = MujocoPendulum(slider)
    for _ in range(2):  # the second call must not start from the first one's end
        assert np.array_equal(system.step(state, action).state.numpy(), np.array(want))


def test_analytic_twin_is_the_same_simulator():
    state, action = inputs()
    for reward in ("pre_step", "post_step"):
        mujoco, twin = (
            MujocoPendulum("wide", reward),
            CartPoleSimulator(pendulum_parameters(), reward),
        )
        got, want = mujoco.step(state, action), twin.step(state, action)
        torch.testing.assert_close(got.state, want.state, atol=1e-14, rtol=1e-15)
        torch.testing.assert_close(got.reward, want.reward, atol=1e-13, rtol=0)
        assert torch.equal(got.alive, want.alive)
        numeric, exact = mujoco.linearize(state, action), twin.linearize(state, action)
        for block in ("A", "B", "r_s", "r_a"):
            value, truth = getattr(numeric, block), getattr(exact, block)
            scale = float(truth.abs().max()) or 1.0
            assert float((value - truth).abs().max()) < 1e-8 * scale, block
        assert not numeric.certificate.flags.any()


def test_estimated_errors_are_above_the_true_ones_but_not_idle():
    state, action = inputs()
    mujoco, twin = MujocoPendulum("wide"), CartPoleSimulator(pendulum_parameters())
    numeric, exact = mujoco.linearize(state, action), twin.linearize(state, action)
    for block in ("A", "B"):
        truth = getattr(exact, block)
        miss = (getattr(numeric, block) - truth).abs().amax((1, 2))
        estimate = numeric.certificate.error[block]
        assert (miss <= estimate * truth.abs().amax((1, 2))).double().mean() > 0.9
        assert estimate.max() < 1e-6


def test_on_the_action_limit_the_derivative_is_the_inside_one_and_beyond_it_zero():
    state = inputs(3)[0]
    action = torch.tensor([[3.0], [-3.0], [3.0 + 1e-9]], dtype=torch.float64)
    B = MujocoPendulum("wide").linearize(state, action).B
    inside = CartPoleSimulator(pendulum_parameters()).linearize(state, action * (1 - 1e-8)).B
    torch.testing.assert_close(B[:2], inside[:2], atol=0, rtol=1e-6)
    assert not B[2].any()


def test_a_stop_inside_the_stencil_is_flagged_or_retried():
    # The cart is on its stop, meets it within ±1e-8, within ±1e-6, and not at all.
    state = torch.zeros(4, 4, dtype=torch.float64)
    state[:, 0] = 1 - torch.tensor([0.0, 5e-9, 5e-7, 1e-2], dtype=torch.float64)
    state[:, 2] = 0.1
    action = torch.zeros(4, 1, dtype=torch.float64)
    state[3, 2] = -0.1
    stopped = MujocoPendulum("stock").linearize(state, action)
    assert stopped.certificate.flags.tolist() == [True, False, False, False]
    assert stopped.certificate.step is not None
    assert stopped.certificate.step.tolist() == pytest.approx([1e-6, 1e-9, 1e-7, 1e-6])
    torch.testing.assert_close(stopped.A[1], stopped.A[2], atol=1e-3, rtol=1e-3)
    assert not MujocoPendulum("wide").linearize(state, action).certificate.flags.any()


def test_numbers_that_mujoco_cannot_take_are_refused_in_silence(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    state, action = inputs(3)
    system = MujocoPendulum()
    far, mad = state.clone(), action.clone()
    far[1, 0], mad[1, 0] = torch.nan, 1e12
    for call in (system.step, system.linearize):
        for name, given in (("state", (far, action)), ("action", (state, mad))):
            with pytest.raises(InputError, match=f"{name} row 1: dimension"):
                call(*given)
    assert capfd.readouterr().err == "" and not list(tmp_path.iterdir())


def test_a_diverging_step_is_nan_and_not_a_restart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs the divergence there
    state = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1e9, 1e9]], dtype=torch.float64)
    out = MujocoPendulum().step(state, state[:, :1])
    assert not out.state[1].isfinite().all()
    assert out.alive.tolist() == [True, False]


# Gymnasium's Pendulum-v1, from another program: the states, the rewards and the clips.


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_every_step_is_gymnasiums():
    """1,000 states around the whole circle and beyond, on both sides of every clip."""
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    draw = np.random.default_rng(0)
    states = draw.uniform([-10, -9], [10, 9], (1000, 2))
    actions = draw.uniform(-3, 3, (1000, 1))
    after, rewards = [], []
    for state, action in zip(states, actions, strict=True):
        env.state = state  # type: ignore[attr-defined]
        rewards.append(env.step(action)[1])
        after.append(env.state)  # type: ignore[attr-defined]
    got = Pendulum().step(torch.from_numpy(states), torch.from_numpy(actions))
    exact = dict(rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(got.state, torch.tensor(np.array(after)), **exact)
    torch.testing.assert_close(got.reward, torch.tensor(np.array(rewards)).double(), **exact)
    assert (got.state[:, 1].abs() == 8).sum() > 20
    assert got.alive.all()


def test_points_on_the_velocity_clip_are_flagged_and_lose_their_derivative():
    system, quiet = Pendulum(), row(0.0)
    near = STENCIL / 2
    for spin, flagged, slope in ((7.9, False, 1.0), (8 - near, True, 1.0), (8.1, True, 0.0)):
        for sign in (1, -1):
            got = system.linearize(row(0.0, sign * spin), quiet)
            assert bool(got.certificate.flags) is flagged
            assert got.A[0, 1, 1] == slope
            assert got.A[0, 0].tolist() == pytest.approx([1 + 0.05 * 0.75 * slope, 0.05 * slope])
            assert got.B.any() == (slope > 0)
    # The clip comes after gravity and motor: it is the new velocity that meets it.
    assert system.linearize(row(math.pi / 2, 7.5), quiet).certificate.flags


def test_the_motor_is_clipped_with_the_inner_derivative_at_its_limit():
    system, state = Pendulum(), row(0.3, 0.1)
    assert torch.equal(system.step(state, row(5.0)).state, system.step(state, row(2.0)).state)
    assert system.step(state, row(5.0)).reward == system.step(state, row(2.0)).reward
    at, beyond = system.linearize(state, row(2.0)), system.linearize(state, row(2.1))
    assert at.B.tolist() == [[[pytest.approx(0.0075)], [pytest.approx(0.15)]]]
    assert not beyond.B.any() and not beyond.r_a.any() and at.r_a.item() == pytest.approx(-0.004)


def test_states_a_turn_apart_have_the_same_reward_and_jacobians():
    system, turn = Pendulum(), row(2 * math.pi, 0.0)
    state, action = row(2.9, -0.7), row(0.4)
    here, there = system.linearize(state, action), system.linearize(state + turn, action)
    for block in ("A", "B", "r_s", "r_a"):
        torch.testing.assert_close(getattr(there, block), getattr(here, block))
    moved = system.step(state + turn, action)
    torch.testing.assert_close(moved.reward, system.step(state, action).reward)
    torch.testing.assert_close(moved.state - turn, system.step(state, action).state)


def test_a_heavier_or_longer_rod_is_the_prior_where_asked_for():
    assert pendulum().prior is None
    assert pendulum(prior_mass=1.5).prior == Pendulum(mass=1.5)
    assert pendulum(prior_length=0.8).prior == Pendulum(length=0.8)
    # Twice the mass: the same fall, half the push.
    pushed = [Pendulum(mass).linearize(row(0.2, 0.1), row(1.0)).B[0, 1, 0] for mass in (1.0, 2.0)]
    assert pushed[0] == pytest.approx(2 * pushed[1])
    again = task_from_name("pendulum", {"prior_mass": 1.5, "prior_length": None})
    assert again.prior == Pendulum(mass=1.5) and again.parameters["prior_mass"] == 1.5


def test_starts_follow_gymnasiums_law():
    starts = pendulum().starts(100_000, torch.Generator().manual_seed(0))
    bound = torch.tensor([math.pi, 1.0], dtype=torch.float64)
    assert (starts.abs() <= bound).all()
    torch.testing.assert_close(starts.std(0), bound / 3**0.5, rtol=0.02, atol=0)
