"""MuJoCo's pendulum against Gymnasium, to the last bit, and against its analytic twin."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import CartPoleSimulator, MujocoPendulum
from gradlab.systems.mujoco_pendulum import pendulum_parameters

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
