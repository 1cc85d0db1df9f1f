"""Rows along on-policy windows: SHAC and what differs from it, on a linear task and refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradlab.training.parts.adaptive_horizon import AdaptiveHorizon, Stiffness
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.window_losses import StateLambda
from tests.training.small_runs import row
from tests.training.test_row_gradients import linear_task, measured


def slopes(stiffness):
    """∂(s′, r)/∂(s, a) [E, 6, 4, 5] with as large a singular value of ∂s′/∂s for each seed."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(len(stiffness), 6, 4, 5, generator=generator, dtype=torch.float64)
    turned, _ = torch.linalg.qr(drawn[:, :, :3, :3])
    scale = torch.tensor(stiffness, dtype=torch.float64)[:, None, None]
    drawn[:, :, :3, :3] = turned * torch.stack([scale, 0.5 * scale, 0.1 * scale], dim=3)
    return drawn


def test_the_horizon_falls_where_steps_are_stiffer_than_the_threshold_and_grows_elsewhere():
    horizon = AdaptiveHorizon(Stiffness(10.0, 8, 0.01), 32, 3, torch.device("cpu"))
    assert horizon.steps.tolist() == [8, 8, 8]
    horizon.value.fill_(20.0)
    H, dual, last = np.full(3, 20.0), np.zeros(3), None
    for _ in range(40):
        last = horizon.value.tolist()
        horizon.step(slopes([5.0, 10.0, 30.0]))
        dual = dual + 0.01 * (np.array([0.5, 1.0, 3.0]) - 1)
        H = np.clip(H - 0.01 * H * dual, 8, 32)
        np.testing.assert_allclose(horizon.value.numpy(), H, rtol=1e-12)
    assert last[0] > 20 and last[1] == pytest.approx(20) and last[2] < 20
    lost = slopes([5.0, 5.0, 5.0])
    lost[1] = torch.nan
    horizon.step(lost)
    assert horizon.value.isfinite().all() and horizon.value[1] == pytest.approx(20)


def along(name, **changes):
    """A row without a critic, or with one, that follows 12 steps; its model is the task's prior."""
    terms = (Term(12, "all"),)
    return replace(row(name), model=None, terms=terms, source=Newest(12), **changes)


def test_windows_through_the_simulator_have_no_bias_but_their_tails():
    plain, horizons = measured(along("apg"), linear_task(), agents=48)
    assert horizons == [1, 2, 4, 8, 12]
    assert plain["bias2_low"][-1] <= 1e-6 * plain["variance"][-1]
    assert plain["bias2_low"][0] > 0  # one step alone
    np.testing.assert_array_equal(plain["bias2_tail"], plain["bias2"])
    for part in ("bias2_states", "bias2_jacobians"):
        np.testing.assert_array_equal(plain[part], 0.0)


def test_the_gradient_of_a_soft_window_is_that_of_the_soft_return():
    target = StateLambda(critics=2, temperature=3.0)
    soft, _ = measured(along("sapo", target=target), linear_task(), agents=48)
    assert soft["bias2_low"][-1] <= 1e-6 * soft["variance"][-1]
    assert soft["bias2_low"][0] > 0


def test_a_wrong_models_jacobians_are_the_whole_bias_along_the_simulators_states():
    wrong, _ = measured(along("dmo"), linear_task(gain=0.4), agents=256)
    assert wrong["bias2_low"][-1] > 0
    np.testing.assert_allclose(wrong["bias2_states"], 0.0, atol=1e-9)
    assert wrong["bias2_jacobians"][-1] > 0.8 * wrong["bias2"][-1]
