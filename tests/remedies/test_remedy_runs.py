"""Whole tests of remedies, small: paired, resumed to the bit, refused where they must be."""

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import Failure, InputError
from gradlab.fitting.collection import Still, collect
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems.learned import TwoModels
from gradlab.tools.remedies.compute import compare_remedies, models_folder, models_of
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


def test_every_arm_takes_all_its_epochs(whole):
    """Patience would stop arms at different steps."""
    run, _ = whole
    assert SETTINGS.patience is not None and run.config["settings"]["patience"] is None


def test_two_models_predict_to_the_bit_as_the_baseline_does(whole):
    levels = whole[0].levels()
    for quantity in ("prediction_error", "held_out_nll"):
        ours, theirs = (
            levels[(levels["model"] == name) & (levels["quantity"] == quantity)]["value"].to_list()
            for name in ("two-model", BASELINE)
        )
        assert ours == theirs and ours


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


def test_a_finished_run_takes_further_trials_and_keeps_those_it_has(whole, networks, tmp_path):
    output = tmp_path / "run.h5"
    compared(networks, output, trials=1)
    same(compared(networks, output, resume=True), whole[0])
    same(compared(networks, output, resume=True, trials=1), whole[0])


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
    assert models_of(output, TASK)


def test_given_data_serve_every_trial_and_trials_still_differ(networks, tmp_path):
    data = collect(TASK, 300, seed=4)
    run = compared(networks, tmp_path / "run.h5", ("more-data", "spectral"), data=data)
    assert run.config["rows"] == 300 and run.config["data_hash"]
    table = run.table()
    chosen = (table["arm"] == "more-data") & (table["quantity"] == "fit_seconds")
    assert len(table[chosen]) == 2
    c = run.cells.columns
    rows = (c["model"] == BASELINE) & (c["quantity"] == "held_out_mse")
    assert len(set(c["value"][rows])) == 2


def test_models_are_kept_as_systems(whole):
    _, output = whole
    found = models_of(output, TASK, trial=1)
    assert list(found) == [BASELINE, "dd", longer("dd"), "two-model", longer("two-model")]
    assert isinstance(found["two-model"], TwoModels)
    assert not list(models_folder(output).glob("*/*.resume.*"))


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


def test_columns_that_never_change_are_told(networks, tmp_path):
    data = collect(TASK, 200, Still(1))
    run = compared(networks, tmp_path / "run.h5", ("spectral",), data=data, trials=1)
    told = run.notes["trials"][0]["fits"][f"{BASELINE}, 3 epochs"]
    assert TASK.action_names[0] in told["constant"]
