"""What claims on losses are made of: known models, photographs of a fit, paired trials.

The tables of the model-based runs, where the returns are given.
"""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from analyses.harness import paired_trials
from analyses.model_based import report as model_based_report
from analyses.model_based.runs import Arm
from analyses.remedies import model_pairs, multistep
from analyses.remedies.model_worlds import Noisy, world
from gradlab.fitting.losses import MultiStep, OneStepError
from gradlab.fitting.models import fit_model
from gradlab.networks.interface import act
from gradlab.systems.linear import LinearQuadratic

HORIZONS = paired_trials.HORIZONS


def wrong(push=1.0, drift=0.0):
    """The linear world's simulator with another effect of the action, or of the velocity."""
    right = world("linear").task.simulator
    A = right.A.clone()
    A[0, 1] += drift
    return LinearQuadratic(A, push * right.B, right.Q, right.R, right.noise_covariance)


def test_a_ratio_is_the_geometric_mean_of_pairs_with_students_interval():
    first, second = np.array([1.0, 2.0, 4.0, 3.0]), np.array([2.0, 2.0, 16.0, 1.5])
    found = paired_trials.ratio(first, second)
    logs = np.log(second / first)
    low, high = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    assert found.value == pytest.approx(math.exp(logs.mean()))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert (found.n, found.less) == (4, 0.25)


def test_one_pair_has_no_interval_and_decides_nothing():
    found = paired_trials.ratio([1.0], [0.5])
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert paired_trials.answer(found) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.2, 0.9, "better"), (1.1, 3.0, "worse"), (0.81, 1.24, "alike"), (0.7, 1.1, "undecided")],
)
def test_an_interval_is_called_by_where_it_lies(low, high, word):
    found = paired_trials.Paired(1.0, low, high, 5, 0.5, np.nan)
    assert paired_trials.answer(found) == word


def test_models_are_paired_by_trial_and_not_by_row():
    rows = [{"arm": arm, "budget": "both", "trial": k, "x": value * 10**k}
            for arm, value in (("a", 1.0), ("b", 3.0)) for k in range(4)]  # fmt: skip
    shuffled = pd.DataFrame(rows).sample(frac=1, random_state=1)
    found = paired_trials.columns(shuffled, ("a", "both"), ("b", "both"), ["x"])
    one, other = found["x"]
    assert other / one == pytest.approx([3.0] * 4)


def test_trials_go_on_where_the_file_ends(tmp_path):
    asked = []

    def measure(cell):
        asked.append(cell["trial"])
        return [{"arm": arm, "value": cell["trial"] + 0.5} for arm in "ab"]

    cells = [{"world": "x", "noise": 0.1, "trial": k} for k in range(3)]
    file = tmp_path / "some" / "trials.csv"
    paired_trials.kept(file, cells[:2], measure)
    table = paired_trials.kept(file, cells, measure)
    assert asked == [0, 1, 2]
    assert list(table["value"]) == [0.5, 0.5, 1.5, 1.5, 2.5, 2.5]
    assert len(paired_trials.kept(file, cells[1:2], measure)) == 2


def test_the_simulator_as_a_model_has_no_error_and_no_bias():
    here = world("linear")
    found = model_pairs.errors(here.task.simulator, model_pairs.held_out_of(here))
    assert max(found[name] for name in ("prediction", "jacobian", "reward_jacobian")) < 1e-25
    biases = model_pairs.gradients(here, {"it": here.task.simulator})["it"]
    assert max(biases[f"bias2_{h}"] for h in HORIZONS) < 1e-10
    assert min(biases[f"cosine_{h}"] for h in HORIZONS) > 1 - 1e-10


def test_an_error_of_one_entry_is_the_standardised_error_of_one_entry():
    here, off = world("linear"), 0.01
    record = here.record(500, 3)
    test = model_pairs.held_out(here.task.simulator, record)
    found = model_pairs.errors(wrong(drift=off), test)
    d = torch.cat([record.state, record.action], 1).std(0)[1]
    f = (record.next_state - record.state).std(0)[0]
    assert found["jacobian"] == pytest.approx(float((off * d / f) ** 2) / 6, rel=1e-6)
    velocity = record.state[:, 1]
    assert found["prediction"] == pytest.approx(
        float(((off * velocity / f) ** 2).mean()) / 2, rel=1e-6
    )


def test_bias_is_that_of_gradients_taken_by_automatic_differentiation():
    here, model = world("linear"), wrong(push=1.3)
    starts, policy = here.truth.setting.starts.states, here.policy
    simulator, gamma = here.task.simulator, here.task.discount

    def gradients(system):
        """Per start, of one step of `system` and the critic, θ in the first action."""
        action = act(policy, starts, None).detach().requires_grad_()
        after = system.step(starts, action).state
        later = gamma * here.critic(after, policy(after))
        pull = torch.autograd.grad((system.step(starts, action).reward + later).sum(), action)[
            0
        ].detach()
        features = torch.cat([starts, torch.ones(len(starts), 1)], 1)
        return pull * features  # ∂a/∂[K, b] of linear feedback

    truth = gradients(simulator)  # the critic is exact: one step of the simulator is the truth
    gap, n = gradients(model) - truth, len(starts)
    unbiased = (gap.sum(0).square().sum() - gap.square().sum()) / (n * (n - 1))
    size = (truth.sum(0).square().sum() - truth.square().sum()) / (n * (n - 1))
    found = model_pairs.gradients(here, {"wrong": model})["wrong"]["bias2_1"]
    assert found == pytest.approx(float(unbiased / size), rel=1e-5)


def test_a_photograph_is_the_fit_that_ends_there():
    """Also where the best epoch is not the last one, as under so large a learning rate."""
    data, rough = world("linear").record(300, 0), {"learning_rate": 0.1}
    shape = model_pairs.settings(4, **rough)
    seen = model_pairs.photographs(data, shape, OneStepError("mse"), (12, 20, 28))
    assert seen[12].best_epoch[0] < 6  # 270 rows are two batches
    for steps, found in seen.items():
        alone = fit_model(
            data, model_pairs.settings(4, epochs=steps // 2, **rough), OneStepError("mse")
        )
        assert found.best_epoch == alone.best_epoch
        for one, other in zip(
            found.ensemble.state_dict().values(), alone.ensemble.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_steps_count_windows_where_a_loss_has_fewer_of_them():
    data, shape = world("linear").record(600, 0), model_pairs.settings(0)
    found = model_pairs.photographs(data, shape, MultiStep(8), (6,))[6]
    assert found.training_rows <= 512
    assert len(found.curves["training"]) == round(6 / math.ceil(found.training_rows / 256))


def test_noise_is_added_and_jacobians_are_those_of_the_mean():
    inner = world("linear").task.simulator
    noisy = Noisy(inner, torch.tensor([0.1, 0.2], dtype=torch.float64))
    state, action = torch.randn(5, 2).double(), torch.randn(5, 1).double()
    noise = noisy.sample_noise(5, torch.Generator().manual_seed(0))
    moved = noisy.step(state, action, noise).state - inner.step(state, action).state
    torch.testing.assert_close(moved, noise * torch.tensor([0.1, 0.2]).double())
    assert torch.equal(noisy.linearize(state, action, noise).A, inner.linearize(state, action).A)


def test_the_pendulums_record_has_bounded_angles_and_true_transitions():
    here = world("pendulum")
    record = here.record(400, 5)
    assert record.state[:, 0].abs().max() <= math.pi
    after = here.task.simulator.step(record.state, record.action).state
    torch.testing.assert_close(after, record.next_state, rtol=0, atol=1e-9)
    joined = record.trajectory[1:] == record.trajectory[:-1]
    torch.testing.assert_close(record.state[1:][joined], record.next_state[:-1][joined])


def test_the_product_of_jacobians_is_the_derivative_of_a_rollout():
    here, eps = world("pendulum"), 1e-5
    simulator = here.task.simulator

    def rolled(state):
        with torch.no_grad():
            for _ in range(5):
                state = simulator.step(state, here.policy(state)).state
        return state

    starts = here.truth.setting.starts.states
    step = torch.tensor([eps, 0.0], dtype=torch.float64)
    difference = (rolled(starts + step) - rolled(starts - step)) / (2 * eps)
    found = multistep.products(here, simulator)[4, :, :, 0]
    torch.testing.assert_close(found, difference, rtol=1e-6, atol=1e-6)
    true = multistep.products(here, simulator)
    assert multistep.product_errors(2 * true, true)["product_5"] == pytest.approx(1.0)


def run_of(last, explained=None):
    returns = np.array([[-10.0] * 5, last])
    shares = np.array([[[0.9, share] for share in explained or ()]])
    return SimpleNamespace(
        returns=returns, model={} if explained is None else {"prediction_explained": shares}
    )


def test_runs_are_listed_best_first_with_the_reward_that_their_models_explain():
    runs = {
        Arm("sac", "cart-pole"): run_of([-5, -4, -3, -2, -1]),
        Arm("mbpo", "cart-pole", model="mse"): run_of([-1.0] * 5, [0.1, 0.2, -0.3, 0.4, 0.5]),
        Arm("maac", "pendulum"): run_of([0.0] * 5, [1.0] * 5),
    }
    lines = model_based_report.listed(runs, "cart-pole").splitlines()[2:]
    assert lines == [
        "| `mbpo`, model by squared error | −1.0 [−1.0, −1.0] | −5.5 [−5.5, −5.5] | 5 of 5 | 0.20 |",  # noqa: E501
        "| `sac` | −3.0 [−5.0, −1.0] | −6.5 [−7.5, −5.5] | 3 of 5 | no model |",  # from −3.7
    ]


def test_long_runs_stand_beside_sac_by_their_means():
    runs = {
        Arm("sac", "hopper-long"): run_of([10.0] * 5),
        Arm("mbpo", "hopper-long"): run_of([10, 12, 14, 16, 18], [1.0] * 5),
    }  # means of 0, and of 0, 1, 2, 3, 4: 2 ± 2.776 √(2.5 / 5)
    first, second = model_based_report.listed(runs, "hopper-long").splitlines()[2:]
    assert first.endswith("| 2 [0, 4] |") and second.endswith("| – |")


def test_large_returns_have_three_digits():
    runs = {Arm("mage", "pendulum"): run_of([-1424.0] * 5, [1.0] * 5)}
    assert "−1,420 [−1,420, −1,420] | −717 [−717, −717]" in model_based_report.listed(
        runs, "pendulum"
    )
