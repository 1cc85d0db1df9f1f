"""First-order rows: pooled errors, the chosen horizon, times to a goal, cuts at stiff steps.

The frozen measurements can be made again.

DP-VS-DR, run small: the verdict points the right way, and it could have failed.

Student's interval against SciPy's own.

The table of runs that begin with given networks.
"""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from analyses.choice.begun_with import OWN, rates
from analyses.dp_vs_dr import __main__ as dp_vs_dr
from analyses.dp_vs_dr.design import Designed, design
from analyses.first_order import dmo, race, stiffness
from analyses.first_order.clock import per_update, seconds_at
from analyses.first_order.errors import chosen, errors_of, table, usable
from analyses.first_order.runs import Arm, arms
from analyses.first_order.stiffness import ratio_of, total
from analyses.harness.student import geometric_mean, half_width
from analyses.measurements import first_measurements
from gradlab.fitting import critics, policies
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.statistics.moments import Estimate

STAGES, SEEDS, ROWS = 5, 5, 64
HORIZONS = np.array([1, 2, 4])


def run_of(bias2=(4.0, 1.0, 9.0), variance=(64.0, 64.0, 64.0)):
    """Truths of squared norm 25 that seeds scale, at an angle of cosine 0.8; one seed lost once."""
    scale = np.arange(1.0, SEEDS + 1)[:, None] * np.ones((STAGES, SEEDS, len(HORIZONS)))
    columns = {
        "bias2": np.array(bias2) * scale**2, "variance": np.array(variance) * scale**2,
        "gradient2": 25 * scale**2, "truth2": 25 * scale**2, "inner": 20 * scale**2,
        "bias2_jacobians": 0 * scale, "bias2_tail": np.array(bias2) * scale**2,
    }  # fmt: skip
    for values in columns.values():
        values[3, 1] = np.nan
    iteration = 10 * np.arange(1, STAGES + 1)
    gradients = {"iteration": iteration, "horizon": HORIZONS, **columns}
    return SimpleNamespace(gradients=gradients, config={"algorithm": {"batch": ROWS}})


def test_pooled_errors_are_those_of_the_given_gradients():
    errors = errors_of(run_of())
    for stage in range(STAGES + 1):
        # 64 rows are 16 paths of 4 steps.
        assert errors.estimate("error", stage, 4).value == pytest.approx((9 + 64 / 16) / 25)
        assert errors.estimate("noise", stage, 4).value == pytest.approx(4 / 25)
        assert errors.estimate("cosine", stage, 2).value == pytest.approx(0.8)
        assert errors.estimate("bias2_tail", stage, 1).value == pytest.approx(4 / 25)
    assert table(run_of())["lost"].tolist()[:3] == [1, 1, 1]


def test_the_chosen_horizon_has_the_least_error_of_its_paths():
    assert chosen(run_of()) == 2  # 5/25, 3/25, 13/25
    assert chosen(run_of(variance=(64.0, 640.0, 640.0))) == 1
    stages = usable(run_of())
    assert stages["least"].tolist() == [2] * STAGES
    assert set(stages["usable"]) == {"1 to 2"}  # 13 is more than twice 3
    assert not stages["undecided"].any()


def test_intervals_with_an_evaluation_count_as_the_median(tmp_path):
    path = tmp_path / "run.seconds.csv"
    # Evaluations before updates 0 and 4; a resumed run repeats update 4.
    path.write_text("update,seconds\n2,50\n4,9\n4,2\n6,70\n8,4\n")
    np.testing.assert_allclose(per_update(path, 4), [1, 2])
    np.testing.assert_allclose(seconds_at(path, np.array([0, 2, 4, 8]), 4), [0, 3, 5, 12])


def curves(row, seconds, reached=True):
    """Seeds that reach the pendulum's goal after so many seconds, or none."""
    late = -200.0 if reached else -900.0
    return pd.concat(
        pd.DataFrame({"world": "pendulum", "row": row, "seed": seed,
                      "seconds": [0.0, at / 2, at], "return": [-1200.0, -900.0, late]})
        for seed, at in enumerate(seconds)
    )  # fmt: skip


def test_times_to_a_goal_and_their_ratio():
    slow, fast = np.array([40.0, 44.0, 36.0, 40.0, 42.0]), np.array([10.0, 11.0, 9.0, 10.0, 10.5])
    every = race.times(pd.concat([curves("shac", fast), curves(race.THERE, slow)]))
    row = race.contrast("pendulum", "shac", every)
    assert row["value"] == pytest.approx(0.25) and 0.2 < row["low"] < 0.25 < row["high"] < 0.3
    never = race.times(pd.concat([curves("shac", fast, False), curves(race.THERE, slow)]))
    row = race.contrast("pendulum", "shac", never)
    assert row["high"] == np.inf and row["reached"] == 0


def test_arms_are_rows_of_the_table_and_windows_hold_whole_paths(tmp_path):
    for arm in arms(tmp_path):
        row = arm.algorithm()
        assert row.source.steps % (row.horizons[0] or 1) == 0
        assert arm.measured == (row.source.steps > 0 and arm != Arm(arm.row, "hopper"))
    assert len({arm.name for arm in arms(tmp_path)}) == len(arms(tmp_path))


def test_a_models_gradients_are_counted_by_what_their_cosines_show(monkeypatch, tmp_path):
    """Of four: one shown above 0.7, one below, one that spans it, one lost."""
    low = np.array([[0.8, -0.2], [0.1, np.nan]])[..., None]
    high = np.array([[1.0, 0.5], [0.9, np.nan]])[..., None]
    table = {"horizon": [16], "dynamics_cosine_low": low, "dynamics_cosine_high": high}
    monkeypatch.setattr(dmo, "finished", lambda arm, runs: arm.world == "hopper")
    monkeypatch.setattr(dmo, "load", lambda path: SimpleNamespace(gradients=table))
    (found,) = dmo.of_models(tmp_path).to_dict("records")
    assert found == {"world": "hopper", "horizon": 16, "above": 1, "below": 1, "neither": 2}


DISCOUNT = 0.9


def test_a_cut_step_hands_on_the_critics_gradient_instead_of_the_later_adjoint():
    """Against autograd of the return that stops at the cut with γ V′, plus the rest after it."""
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(3, 2, n, generator=generator, dtype=torch.float64) for n in (2, 1))
    r = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    value = nn.Linear(2, 1).double()

    def beyond(state):
        return DISCOUNT * value(state)[0]

    slopes = torch.cat([torch.cat([A, B], dim=2), r[:, None]], dim=1)[None]
    slope = (DISCOUNT * value.weight[0]).detach().expand(1, 3, 2)
    where = torch.tensor([[False, True, False]])
    J = stiffness.cut(slopes, slope, where)[0]

    adjoint, ours = slope[0, 2], []
    for t in reversed(range(3)):
        joint = torch.cat([adjoint, torch.ones(1, dtype=torch.float64)])
        pulled = joint @ J[t]
        ours.append(pulled[2:])
        adjoint = DISCOUNT * pulled[:2]
    actions = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    states = [torch.zeros(2, dtype=torch.float64)]
    total_return, weight = 0.0, 1.0
    for t in range(3):
        joint = torch.cat([states[-1], actions[t]])
        total_return = total_return + weight * (r[t] @ joint)
        states.append(torch.cat([A[t], B[t]], dim=1) @ joint)
        if t == 1:  # the critic's from here, and what follows begins at a state that is held
            total_return = total_return + weight * beyond(states[-1])
            states[-1] = states[-1].detach()
        weight *= DISCOUNT
    total_return = total_return + weight / DISCOUNT * beyond(states[-1])
    (wanted,) = torch.autograd.grad(total_return, actions)
    powers = DISCOUNT ** torch.arange(3, dtype=torch.float64)
    torch.testing.assert_close(powers * torch.stack(ours[::-1])[:, 0], wanted[:, 0])


def test_ratios_of_sums_cover_the_known_ratio_wider_with_more_looks():
    rng = np.random.default_rng(0)

    def mean_of(x):
        return Estimate(float(x.mean()), (x.sum() - x) / (len(x) - 1))

    samples = [rng.gamma(4.0, size=(2, 200)) for _ in range(3)]
    first = total([mean_of(2 * one) for one, _ in samples])
    second = total([mean_of(other) for _, other in samples])
    assert first.value == pytest.approx(sum(2 * one.mean() for one, _ in samples))
    single, several = (ratio_of(first, second, looks) for looks in (1, 9))
    assert single["low"] < 2 < single["high"]
    # Independent samples of coefficient of variation 1/2: se of the logarithm √(2 · ¼ / 600).
    assert np.log(single["high"] / single["value"]) == pytest.approx(1.96 * 0.0289, rel=0.2)
    assert np.log(several["high"] / several["value"]) == pytest.approx(2.77 * 0.0289, rel=0.2)


def test_the_threshold_whose_interval_ends_lowest_decides():
    tables = [
        pd.DataFrame({
            "label": [f"{world} {C}" for C in stiffness.THRESHOLDS[:-1]], "world": world,
            "C": stiffness.THRESHOLDS[:-1], "cut": 0.1, "stiffness": 13.0, "median": 13.0,
            "least": np.nan, "most": np.nan, "value": [2.0, 1.0, 0.8, 0.7, 0.9, 1.0],
            "low": 0.1, "high": [3.0, 1.5, 0.95, high, 1.2, np.nan],
        })
        for world, high in zip(stiffness.WORLDS, (0.9, 1.1, 0.8), strict=True)
    ]  # fmt: skip
    verdict = stiffness.judged(tables)
    assert verdict.holds
    decided = verdict.table[verdict.table["most"] == 1.0]
    assert decided["high"].tolist() == [0.9, 0.95, 0.8]


ONE = {"double-integrator": "double_integrator"}  # quick beside the two that are frozen


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [ONE, first_measurements.TASKS], ids=len)
def test_a_small_run_leaves_report_numbers_and_provenance(tmp_path, monkeypatch, tasks):
    monkeypatch.setattr(first_measurements, "TASKS", tasks)
    monkeypatch.setattr(policies, "UPDATES", 50)
    monkeypatch.setattr(critics, "UPDATES", 20)
    monkeypatch.setattr(critics, "TRAJECTORIES", 64)
    first_measurements.main(small=True, output=tmp_path, tasks=tuple(tasks))
    for folder in tasks:
        made = json.loads((tmp_path / folder / "made.json").read_text())
        assert made["command"].startswith("gradlab measure")
        assert made["law"] == "visited" and made["truth"]["kind"] == "objective"
        assert made["verdict"]
        assert "</html>" in (tmp_path / folder / "report.html").read_text()
        assert (tmp_path / folder / "numbers.csv").read_text().startswith("estimator,horizon")
        assert made["networks"] is None
    again(tmp_path, tasks)


def again(output, tasks):
    """The same networks measured again, which keeps what fitted them."""
    files = {file: file.read_bytes() for file in output.glob("*/*.safetensors")}
    first_measurements.main(small=True, kept=True, output=output, tasks=tuple(tasks))
    assert files == {file: file.read_bytes() for file in output.glob("*/*.safetensors")}
    for folder in tasks:
        made = json.loads((output / folder / "made.json").read_text())
        assert "--policy" in made["command"] and "--policy" not in made["networks"]["command"]


@pytest.fixture(scope="module")
def small():
    return dp_vs_dr.measure(small=True)


def test_the_design_has_exactly_the_moments_asked_for():
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    starts, noise = design(mean, covariance, 5)
    columns = torch.cat([starts - mean, *noise], dim=1)
    expected = torch.block_diag(covariance, torch.eye(10, dtype=torch.float64))
    torch.testing.assert_close(starts.mean(dim=0), mean)
    torch.testing.assert_close(columns.T @ columns / len(columns), expected, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_derivatives_on_simulator_states_are_less_biased_at_longer_horizons(small):
    numbers = small.numbers
    assert numbers["bias_ratio_high_h5_error0.05"] < 1


@pytest.mark.slow
def test_swapping_the_two_estimators_turns_their_ratio_around(small):
    table = small.table
    swapped = table.assign(gradient=table["gradient"].map({"DP": "DR", "DR": "DP"}))
    assert dp_vs_dr.judge(swapped).numbers["bias_ratio_low_h5_error0.05"] > 1
    better = table.assign(bias=table["bias"].where(table["gradient"] == "DP", 0.5 * 1e-9))
    assert dp_vs_dr.judge(better).holds


def test_the_exact_critic_makes_the_true_model_s_gradient_approach_the_truth():
    world = dp_vs_dr.make_world()
    starts, noise = design(world.start_mean, world.start_covariance, 200)
    system = Designed(world.system, noise)
    tail = Tail(200, world.critic, dp_vs_dr.DISCOUNT)
    found = Estimator(system, system, "all", tail).mean_gradient(world.policy, starts, 0)
    # Only θ in the actions after the tail is left out, of weight γ²⁰⁰ = 3.5e-5.
    torch.testing.assert_close(found, world.truth, rtol=1e-3, atol=1e-3 * world.truth.norm().item())


VALUES = np.random.default_rng(0).normal(3.0, 1.0, size=(2, 6))


def test_a_half_width_is_that_of_scipys_test_of_one_mean():
    for level in (0.9, 0.95):
        interval = stats.ttest_1samp(VALUES, 0.0, axis=1).confidence_interval(level)
        np.testing.assert_allclose(half_width(VALUES, level), (interval.high - interval.low) / 2)


def test_one_value_has_no_interval():
    assert np.isnan(half_width([2.0]))


def test_a_geometric_mean_has_the_ends_of_its_logarithms():
    value, low, high = geometric_mean(np.exp(VALUES[0]))
    interval = stats.ttest_1samp(VALUES[0], 0.0).confidence_interval()
    assert value == np.exp(VALUES[0].mean())
    np.testing.assert_allclose((low, high), np.exp([interval.low, interval.high]))


def row(world, rate, iteration, seed, value, quantity="return"):
    return dict(
        world=world, rate=rate, iteration=iteration, seed=seed, quantity=quantity, value=value
    )


def test_returns_are_means_over_seeds_in_the_order_of_iterations():
    table = pd.DataFrame([
        row("path", 1e-6, 60, 0, -2.0), row("path", 1e-6, 60, 1, -4.0),
        row("path", 1e-6, 0, 0, -6.0), row("path", 1e-6, 0, 1, -6.0),
        row("path", OWN, 0, 0, 1.5), row("path", OWN, 250, 0, 0.7, "gain of model_all, h = 25"),
    ])  # fmt: skip
    lines = rates(table).splitlines()
    assert lines[2:] == [
        "| path | 1e-06 | −6 after 0, −3 after 60 |",
        "| path | 0.0003, falling | 1.5 after 0 |",
    ]
