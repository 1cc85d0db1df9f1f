"""Whole tests of remedies, small: paired, resumed to the bit, refused where they must be.

`gradlab remedies`: what it writes and says, how it goes on, what it refuses.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import gradlab
from gradlab import cli
from gradlab.errors import Failure, InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.mlp import Policy, QCritic
from gradlab.reporting import render
from gradlab.tools.remedies import page as remedies_page
from gradlab.tools.remedies.compute import compare_remedies
from gradlab.tools.remedies.page import verdict
from gradlab.tools.remedies.result import (
    BASELINE,
    STEPS,
    TIME,
    Key,
    ModelPair,
    ModelValue,
    Remedies,
    load,
    longer,
)
from tests.first_screens import check_first_screen
from tests.planted_tools import RUN

TASK = gradlab.tasks.double_integrator()
SETTINGS = ModelSettings(members=1, hidden=(8, 8), bootstrap=False, epochs=3, batch=32)
COSTS = {"spectral": 1.5, "dd": 2.0, "two-model": 3.0, "multistep": 1.0}
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
    return [each for each in run.values if each.quantity not in TIMES]


def same(one, other):
    np.testing.assert_equal(numbers(one), numbers(other))


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
    assert all(each.sentence for each in verdict(run))


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(whole, networks, tmp_path):
    def killed(stage, done, total):
        if stage == "trial 2: models" and done >= 8:
            raise KeyboardInterrupt

    output = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        compared(networks, output, progress=killed)
    assert load(output).trials == 1
    fits = []
    again = compared(networks, output, resume=True, progress=lambda *told: fits.append(told))
    same(again, whole[0])
    same(load(output), whole[0])
    assert not any(stage.startswith("trial 1") for stage, _, _ in fits)


def test_another_question_is_not_resumed(whole, networks):
    _, output = whole
    with pytest.raises(InputError, match="begun with other rows, starts: repeat them"):
        compared(networks, output, resume=True, rows=301, starts=9)
    with pytest.raises(InputError, match="exists: choose another output"):
        compared(networks, output)


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


# Numbers of trials become paired differences and ratios; a file gives them back bit for bit.


PAIR = ModelPair("dd", STEPS, BASELINE, "dd")
CONFIG = {"task": "planted", "horizon": 3, "starts": 4, "batch": 256, "rows": 10, "seed": 0}


def run(trials):
    """trials: one {(model, key): value} each."""
    values = tuple(
        ModelValue(model, key.quantity, value, key.block, key.at, k)
        for k, numbers in enumerate(trials)
        for (model, key), value in numbers.items()
    )
    return Remedies(values, (PAIR,), CONFIG, {"commit": "abc"}, {"trials": []})


def pair(first, second, key):
    return run([{(BASELINE, key): a, ("dd", key): b} for a, b in zip(first, second, strict=True)])


def only(found):
    assert len(found) == 1
    return found.iloc[0]


def test_a_difference_over_trials_has_the_interval_of_a_paired_t_test():
    first, second = np.array([3.0, 5.0, 7.0, 9.0]), np.array([2.0, 5.0, 5.0, 8.0])
    row = only(pair(first, second, Key("cosine", at=2)).table())
    gap = second - first
    assert row["difference"] == pytest.approx(gap.mean())
    half = stats.t.ppf(0.975, 3) * gap.std(ddof=1) / 2
    assert gap.tolist() == [-1, 0, -2, -1]  # symmetric, so that skewness corrects nothing
    assert [row["ci_low"], row["ci_high"]] == pytest.approx([-1 - half, -1 + half])
    assert row["n"] == 4 and row["method"] == "paired jackknife over trials"
    assert np.isnan(row["ratio"]) and row["at"] == 2.0


def test_a_ratio_over_trials_is_the_geometric_mean_with_the_interval_of_its_logarithms():
    first, second = np.array([1.0, 10.0, 0.1, 2.0]), np.array([2.0, 15.0, 0.4, 1.0])
    row = only(pair(first, second, Key("mse", at=1)).table())
    logs = np.log(second / first)
    test = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    expected = np.exp([logs.mean(), test.low, test.high])
    assert [row["ratio"], row["ratio_low"], row["ratio_high"]] == pytest.approx(expected)


def test_a_number_below_zero_in_one_trial_leaves_no_ratio():
    row = only(pair([1.0, -0.1, 2.0], [2.0, 1.0, 3.0], Key("bias2", at=1)).table())
    assert np.isnan(row["ratio"]) and np.isfinite([row["ci_low"], row["ci_high"]]).all()


def test_a_trial_in_which_one_model_is_lost_is_left_out_of_both():
    row = only(pair([1.0, 2.0, 3.0], [2.0, np.inf, 4.0], Key("mse", at=1)).table())
    assert row["first"] == 2.0 and row["second"] == 3.0 and row["n"] == 2


def test_a_file_gives_everything_back_bit_for_bit(tmp_path):
    key = Key("jacobian_error", "B")
    before = pair([0.1, 0.2], [0.3, 0.1], key)
    path = before.save(tmp_path / "run.h5")
    after = load(path)
    assert after.pairs == before.pairs and after.trials == 2
    assert after.values == before.values
    assert after.config == CONFIG
    assert after.table().equals(before.table())


TINY = ("--hidden", "8", "--epochs", "2", "--horizon", "3", "--starts", "8", "--batch", "8")


def asked(output, networks, *words):
    found = ["remedies", "double_integrator", *networks, *TINY, "--rows", "120"]
    return [*found, "--output", str(output), "--json", "--no-report", *words]


def answered(capsys, words):
    assert cli.main(words) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys, words):
    assert cli.main(words) == 2
    return capsys.readouterr().err


def test_made_networks_are_kept_and_serve_a_run_that_goes_on(tmp_path, capsys, monkeypatch):
    from gradlab.fitting import critics, policies
    from gradlab.networks.mlp import Policy, QCritic

    made: list[str] = []

    def policy(task, **_):
        made.append("policy")
        return Policy(2, 1, (4,)).double()

    def critic(task, policy, **_):
        made.append("critic")
        return QCritic(2, 1, (4,)).double()

    monkeypatch.setattr(policies, "stabilising_policy", policy)
    monkeypatch.setattr(critics, "fit_critic", critic)
    words = asked(tmp_path / "run.h5", (), "--remedies", "mse")
    answered(capsys, [*words, "--trials", "1"])
    assert made == ["policy", "critic"]
    assert (tmp_path / "run.policy.safetensors").exists()
    answered(capsys, [*words, "--trials", "2", "--resume"])
    assert made == ["policy", "critic"] and load(tmp_path / "run.h5").trials == 2


# The page of a test of remedies: its verdict, tables and hostile names.


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("remedies") / "run.html"
    path.write_text(render(remedies_page.page(RUN)), encoding="utf-8")
    return path


def test_the_first_screen_names_action_and_price(tab, tmp_path):
    found = remedies_page.page(RUN)
    check_first_screen(tab, found, tmp_path)
    assert found.advice.use.startswith("spectral")
    assert found.advice.gain.startswith("error lower by 1.5× at")
    assert found.advice.field("price").startswith("1× the time")
