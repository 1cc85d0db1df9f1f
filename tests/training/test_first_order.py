"""Rows along on-policy windows: SHAC and what differs from it, on a linear task and refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradlab.errors import InputError
from gradlab.storage.journal import read
from gradlab.training import loop
from gradlab.training.algorithms import find
from gradlab.training.loop import train
from gradlab.training.parts.adaptive_horizon import AdaptiveHorizon, Stiffness
from gradlab.training.parts.lambda_targets import StateLambda
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from tests.training.small_runs import SMALL, row, task
from tests.training.test_row_gradients import begun, linear_task, measured


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


def test_the_horizon_of_every_seed_is_recorded(tmp_path):
    options = SMALL | {"iterations": 30, "evaluate_every": 30}
    path = train(row("ahac"), task(), tmp_path / "run.h5", **options, seeds=2)
    recorded = read(path).groups["updates"]["adapted_horizon"].values
    assert recorded.shape == (3, 2) and (recorded >= 2).all() and (recorded <= 4).all()
    assert recorded[-1].max() > 2  # the small world is smoother than its threshold


def test_a_deterministic_policy_that_does_not_explore_beside_its_actions_may_be_trained():
    target = replace(find("shac").target, stochastic=False)
    replace(find("shac"), policy="deterministic", target=target, exploration=0.0)


def test_windows_beyond_the_machines_memory_are_refused_with_the_predicted_peak(
    tmp_path, monkeypatch
):
    notes = []
    options = SMALL | {"iterations": 2, "evaluate_every": 2}
    train(row("shac"), task(), tmp_path / "a.h5", note=notes.append, **options)
    assert "take about" in notes[0] and "at their peak" in notes[0]
    monkeypatch.setattr("gradlab.training.loop.present_on", lambda device: 1000.0)
    with pytest.raises(InputError, match=r"take about .* but the machine has .*lower the horizon"):
        train(row("shac"), task(), tmp_path / "b.h5", **options)
    assert not (tmp_path / "b.h5").exists()


def test_the_predicted_peak_counts_the_jacobians_of_the_whole_window():
    run = begun(row("shac"), task(), agents=50, seeds=2)
    window, numbers = 2 * 4 * 50, (3 + 1) * (3 + 2)  # rows of two seeds; of a row
    assert loop.predicted(run) > 3 * 8 * window * numbers


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


def test_a_task_without_a_prior_is_no_hindrance(tmp_path):
    options = SMALL | {"iterations": 4, "evaluate_every": 4, "termination": "mask"}
    path = train(row("shac"), replace(task(), prior=None), tmp_path / "run.h5", **options)
    assert read(path).groups["updates"]["policy_norm"].values.min() > 0
