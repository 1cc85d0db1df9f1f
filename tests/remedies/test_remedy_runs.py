"""Whole tests of remedies, small: paired, resumed to the bit, refused where they must be."""

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import Failure, InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.mlp import Policy, QCritic
from gradlab.tools.remedies.compute import compare_remedies, models_folder
from gradlab.tools.remedies.findings import verdict
from gradlab.tools.remedies.result import BASELINE, STEPS, TIME, load, longer

TASK = gradlab.tasks.double_integrator()
SETTINGS = ModelSettings(members=1, hidden=(8, 8), bootstrap=False, epochs=3, batch=32)
COSTS = {"spectral": 1.5, "dd": 2.0, "two-model": 3.0, "more-data": 1.0, "multistep": 1.0}
TIMES = ("fit_seconds",)  # nobody's clock runs twice alike


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(2, 1, hidden=(8,)), QCritic(2, 1, hidden=(8,))


def compared(networks, output, arms=("dd", "two-model"), **options):
    given = {"rows": 300, "trials": 2, "horizon": 3, "starts": 8, "settings": SETTINGS}
    given |= {"costs": COSTS, "batch": 64} | options
    return compare_remedies(TASK, *networks, output, arms, **given)


@pytest.fixture(scope="module")
def whole(networks, tmp_path_factory):
    output = tmp_path_factory.mktemp("remedies") / "run.h5"
    return compared(networks, output), output


def numbers(run):
    """Everything but clocks."""
    c = run.cells.columns
    kept = ~np.isin(c["quantity"].astype(str), TIMES)
    return {name: values[kept] for name, values in c.items()}


def same(one, other):
    for name, values in numbers(one).items():
        np.testing.assert_array_equal(numbers(other)[name], values)
    np.testing.assert_array_equal(one.cells.left_out, other.cells.left_out)


def test_every_quantity_is_compared_for_every_arm_under_both_budgets(whole):
    run, output = whole
    table = run.table()
    assert set(table["arm"]) == {"dd", "two-model"} and set(table["budget"]) == {STEPS, TIME}
    assert set(table["quantity"]) >= {
        "prediction_error", "jacobian_error", "bias2", "variance", "mse", "least_mse",
        "lyapunov", "held_out_nll", "held_out_mse", "fit_seconds", "step_cost",
    }  # fmt: skip
    assert (table["n"] == 2).all() and load(output).table().equals(table)
    cost = table[(table["quantity"] == "step_cost") & (table["budget"] == TIME)]
    assert cost.set_index("arm")["second"].to_dict() == {"dd": 2.0, "two-model": 3.0}
    assert run.config["models"][longer("dd")] == [[BASELINE, 6]]
    assert all(sentence.text for sentence in verdict(run))


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(whole, networks, tmp_path):
    def killed(stage, done, total):
        if stage == "trial 2: models" and done >= 8:
            raise KeyboardInterrupt

    output = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        compared(networks, output, progress=killed)
    assert load(output).trials == 1
    kept = models_folder(output) / "trial-1" / f"{BASELINE}-3.safetensors"
    before = kept.stat().st_mtime_ns
    fits = []
    again = compared(networks, output, resume=True, progress=lambda *told: fits.append(told))
    same(again, whole[0])
    same(load(output), whole[0])
    assert kept.stat().st_mtime_ns == before
    assert not any(stage.startswith("trial 1") for stage, _, _ in fits)


def test_another_question_is_not_resumed(whole, networks):
    _, output = whole
    with pytest.raises(InputError, match="begun with other rows, starts: repeat them"):
        compared(networks, output, resume=True, rows=301, starts=9)
    with pytest.raises(InputError, match="exists: choose another output"):
        compared(networks, output)


def test_nothing_to_resume_is_said(networks, tmp_path):
    with pytest.raises(InputError, match="holds no models of a test of remedies"):
        compared(networks, tmp_path / "none.h5", resume=True)
    (tmp_path / "mine-models").mkdir()
    (tmp_path / "mine-models" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds no models of a test of remedies"):
        compared(networks, tmp_path / "mine.h5")
    assert (tmp_path / "mine-models" / "thesis.tex").exists()


def test_models_of_a_stopped_run_are_not_thrown_away_unasked(networks, tmp_path):
    def killed(stage, done, total):
        if done >= 4:
            raise KeyboardInterrupt

    output = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        compared(networks, output, progress=killed)
    assert not output.exists()
    with pytest.raises(InputError, match="of a run that was stopped: go on with resume=True"):
        compared(networks, output)
    assert compared(networks, output, resume=True, trials=1).trials == 1
    assert compared(networks, output, overwrite=True, trials=1, rows=200).config["rows"] == 200


def test_what_was_there_stays_where_the_new_run_is_refused(networks, tmp_path):
    output = tmp_path / "run.h5"
    before = compared(networks, output, ("spectral",), trials=1)
    with pytest.raises(InputError, match="arm dd: "):
        compared(networks, output, data=collect(TASK, 11), overwrite=True)
    same(load(output), before)


def test_what_cannot_be_measured_is_refused_before_anything_is_fitted(networks, tmp_path):
    output = tmp_path / "run.h5"
    for wrong, message in (
        ({"arms": ()}, "arms is empty"),
        ({"arms": ("magic",)}, "arm 'magic' is unknown"),
        ({"trials": 0}, "trials is 0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"starts": 2}, "starts is 2"),
        ({"rows": 0}, "rows is 0"),
        ({"costs": {"dd": 0.0}}, "costs has 0.0 for dd"),
        ({"settings": ModelSettings(reward=False)}, "reward=False"),
        ({"data": collect(gradlab.tasks.path_tracking(), 50)}, "is it of another task"),
    ):
        arms = wrong.pop("arms", ("dd",))
        with pytest.raises(InputError, match=message):
            compared(networks, output, arms, **wrong)
    assert not output.exists()


def test_an_arm_that_diverges_is_named(networks, tmp_path):
    wild = ModelSettings(
        members=1, hidden=(8,), bootstrap=False, epochs=2, batch=32, learning_rate=1e30
    )
    with pytest.raises(Failure, match=r"^arm dd: all 1 members left the finite numbers"):
        compared(networks, tmp_path / "run.h5", settings=wild)
