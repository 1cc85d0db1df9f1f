"""What a training run says: goals, aggregates over seeds, pages and commands.

Two measurements side by side: what is refused, what is paired, and whether the errors hold.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from gradlab import figures
from gradlab.cli import main
from gradlab.errors import InputError
from gradlab.reporting import report, training_page
from gradlab.reporting.output import compared as side_by_side
from gradlab.runs.comparison import compared
from gradlab.runs.profile import Profile
from gradlab.runs.training.results import first_reached, load, loaded, table, times
from gradlab.statistics.comparison import difference, on_joint_groups
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import Estimate
from gradlab.verdicts.comparison import comparison_verdict
from tests.first_screens import check_first_screen
from tests.runs.planted_pairs import profile
from tests.runs.planted_training import RETURNS, written


def test_goals_are_reached_when_a_seed_first_passes_them(tmp_path):
    run = load(written(tmp_path / "run.h5"))
    np.testing.assert_array_equal(first_reached(run, -30), [3000, 6000, 6000, 3000, 6000])
    np.testing.assert_array_equal(first_reached(run, -5), [np.nan, 6000, 6000, np.nan, 6000])


def test_the_table_has_every_seed_and_their_mean(tmp_path):
    rows = table({"a": load(written(tmp_path / "run.h5"))})
    last = rows[(rows["quantity"] == "return") & (rows["iteration"] == 6000)].set_index("seed")
    assert last.loc["3", "value"] == -50.0
    assert last.loc["all", "value"] == -4.0
    assert last.loc["all", "ci_low"] < last.loc["all", "value"] < last.loc["all", "ci_high"]
    assert set(rows[rows["quantity"] == "weight 25"]["value"]) == {0.8}


@pytest.mark.parametrize("lost", [(0,), (0, 1)])
def test_a_run_of_two_seeds_has_a_page_where_seeds_are_lost_from_the_first_row_on(tmp_path, lost):
    returns = RETURNS[:, :2].copy()
    returns[:, lost] = np.nan
    assert "Return" in report(written(tmp_path / "run.h5", returns=returns)).read_text()


def test_times_belong_to_one_horizon_of_the_rollouts(tmp_path):
    rows = times({"a": load(written(tmp_path / "run.h5"))})
    # The first row ends nothing before it, and in the last the horizon changed.
    assert rows["horizon"].tolist() == [25.0, 25.0, 25.0]
    found = rows.set_index("part")["milliseconds"]
    assert found["policy"] == pytest.approx(50.0)
    assert found["critic"] == pytest.approx(20.0)
    assert found["iteration"] == pytest.approx(1e3 * 10 / 3000)


def test_runs_of_different_tasks_are_not_compared(tmp_path):
    first = written(tmp_path / "a.h5")
    second = written(tmp_path / "b.h5", task="inverted_pendulum")
    with pytest.raises(InputError, match="different tasks"):
        loaded([first, second])
    with pytest.raises(InputError, match="two or more"):
        loaded([first])


def test_runs_of_one_algorithm_are_named_by_their_files(tmp_path):
    runs = loaded([written(tmp_path / "a.h5"), written(tmp_path / "b.h5")])
    assert list(runs) == ["a", "b"]
    assert replace(runs["a"], events=()).name == "mpg-v2"


def test_a_run_without_an_evaluation_says_so(tmp_path):
    path = written(tmp_path / "run.h5", returns=RETURNS[:0])
    with pytest.raises(InputError, match="no evaluation yet"):
        load(path)


def test_marks_of_time_stand_for_enough_rows_each():
    rows = pd.DataFrame(
        {
            "run": "a", "part": "iteration", "milliseconds": [50.0] * 6 + [20.0] * 6 + [30.0],
            "horizon": [25.0] * 6 + [0.0] * 6 + [13.0],
        }
    )  # fmt: skip
    ax = figures.update_times(rows)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a, H = 25", "a, H = 0"]
    (container,) = ax.containers
    assert container[0].get_ydata() == pytest.approx([50.0, 20.0])
    few = figures.update_times(rows.tail(1))
    assert "too short a run" in [text.get_text() for text in few.texts]
    plt.close("all")


def test_the_first_screen_says_who_has_learned_and_which_seed_failed(tab, tmp_path):
    run = load(written(tmp_path / "run.h5"))
    found = training_page.page(run)
    check_first_screen(tab, found, tmp_path)
    # Seed 3 falls to −50 from −99, seed 4 rises from −500: all five improve.
    assert found.advice.light == "act"
    assert found.advice.field("learned").startswith("yes: 5 of 5 seeds end above the start")
    assert found.advice.field("next") == "use it"
    worse = np.array(RETURNS)
    worse[-1, 3] = -100.0
    told = training_page.page(load(written(tmp_path / "b.h5", returns=worse))).advice
    assert told.light == "choose" and told.field("next") == "look at seed 3, no better than before"
    # (5 + 1) / 2⁵
    assert told.field("learned").startswith(
        "not shown: 4 of 5 seeds end above the start (p = 0.19)"
    )


def test_a_goal_that_was_met_before_training_is_no_goal_reached(tmp_path):
    met = np.full((3, 5), -0.005)  # above every goal of path tracking from the start on
    told = training_page.page(load(written(tmp_path / "run.h5", returns=met))).advice
    assert not told.field("goal")
    found = training_page.page(load(written(tmp_path / "b.h5"))).advice
    assert found.field("goal").startswith("3 of 5 seeds reach -5")
    other = {"s": load(written(tmp_path / "c.h5", task="pendulum"))}
    assert "dotted" not in training_page.panels(other)[0].caption


def test_the_best_of_several_runs_is_shown_or_not(tab, tmp_path):
    gap = RETURNS + np.array([-20.0, -21, -19, -20, -20])
    alike = RETURNS + np.array([-2.0, 2, -1, 1, -0.5])
    files = [
        written(tmp_path / "a.h5", name="good"),
        written(tmp_path / "b.h5", name="bad", returns=gap),
    ]
    page, _ = side_by_side(files)
    check_first_screen(tab, page, tmp_path)
    assert page.advice.use.startswith("good on path_tracking") and page.advice.light == "act"
    assert page.advice.field("difference") == "20 (CI 19–21)"
    files.append(written(tmp_path / "c.h5", name="near", returns=alike))
    page, _ = side_by_side(files)
    check_first_screen(tab, page, tmp_path)
    lead = "better than bad; these seeds do not separate it from near"
    assert (page.advice.light, page.advice.field("lead")) == ("choose", lead)
    # A difference whose interval holds 0 is not printed large.
    assert not page.advice.field("difference")


def test_no_run_is_taken_where_every_seed_of_all_ends_below_its_start(tmp_path):
    fallen = np.array(RETURNS)
    fallen[-1] = fallen[0] + np.array([-20.0, -21, -19, -20, -20])
    files = [
        written(tmp_path / "a.h5", name="good", returns=fallen),
        written(
            tmp_path / "b.h5", name="bad", returns=fallen - 20.0 * (np.arange(3) == 2)[:, None]
        ),
    ]
    told = side_by_side(files)[0].advice
    assert told.light == "none" and told.use == (
        "none on path_tracking: no seed of good, the highest median, ends above its start"
    )


def test_a_run_that_falls_is_not_taken_because_a_lower_one_rises(tmp_path):
    high = np.zeros(np.shape(RETURNS))
    high[-1] = np.array([-2.0, -2.1, -1.9, -2, -2])
    files = [
        written(tmp_path / "a.h5", name="falls", returns=high),
        written(tmp_path / "b.h5", name="rises"),
    ]
    told = side_by_side(files)[0].advice
    assert "no seed of falls, the highest median" in told.use and told.light == "none"


def said(first: Profile, second: Profile) -> dict[str, str]:
    """What a finding of each code is about."""
    return {each.code: each.at for each in comparison_verdict(compared(first, second))}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"task": "path_tracking"}, "task is pendulum in A and path_tracking in B"),
        ({"policy_hash": "xyz"}, "policy is abc in A and xyz in B"),
        ({"task_parameters": {"gravity": 9}}, "the task's gravity is None in A and 9 in B"),
        ({"truth": "objective"}, "truth is matched in A and objective in B"),
        ({"termination": "mask"}, "termination is ignore in A and mask in B"),
        ({"discount": 0.9}, "discount is None in A and 0.9 in B"),
    ],
)
def test_runs_of_different_tasks_policies_or_truths_are_refused_by_name(other, named):
    with pytest.raises(InputError, match=named):
        compared(profile(), profile(**other))


def test_truths_cut_at_different_steps_are_different_truths():
    cut = {"status": "cut", "horizon": 40}
    assert compared(profile(facts=cut), profile(facts=cut))
    with pytest.raises(InputError, match="truth is cut is 40 in A and 60 in B"):
        compared(profile(facts=cut), profile(facts=cut | {"horizon": 60}))


def test_gradients_with_other_actions_have_another_truth():
    first, all_ = ({"actions": {"model": each}} for each in ("first", "all"))
    with pytest.raises(InputError, match="actions that carry θ in model is first in A and all"):
        compared(profile(**first), profile(**all_))


def test_another_prior_is_another_model_of_the_same_task():
    parameters = ({"task_parameters": {"prior_push": push}} for push in (1.0, 0.8))
    found = said(*(profile(**each) for each in parameters))
    assert found["changed"] == "prior push (1.0 → 0.8)" and "unpaired" not in found


def test_a_changed_model_is_named_and_no_dictionary_is_cut_off():
    noise = ({"model": "given", "mixed": "given"}, {"model": "mean", "mixed": "given"})
    first, second = (
        profile(model=model, jacobian_noise=each)
        for model, each in zip(("LinearQuadratic 1a2b", "LearnedSystem 3c4d"), noise, strict=True)
    )
    text = said(first, second)["changed"]
    assert "model (LinearQuadratic 1a2b → LearnedSystem 3c4d)" in text
    assert "jacobian noise of model (given → mean)" in text and "{" not in text


def test_what_both_have_in_common_leaves_the_error_of_a_paired_difference():
    rng = np.random.default_rng(3)
    common = profile(lambda n: 1.0 + 0.1 * n)
    shared = common.left_out + 0.5 * rng.normal(size=common.left_out.shape[3])
    first = replace(common, left_out=shared)
    second = replace(common, left_out=shared * 1.0)
    table = compared(first, second).table()
    rows = table[table["quantity"] == "mse"]
    assert (rows["difference"] == 0).all() and (rows["se"] < 1e-12).all()
    apart = compared(first, replace(second, config={**second.config, "starts_hash": "t"}))
    assert apart.unpaired == "of different starts"
    found = apart.table()
    error = found[(found["quantity"] == "mse") & (found["estimator"] == "model")]["se"]
    alone = jackknife_se(first.estimate("model", "mse", 3).left_out)
    assert error.iloc[3] == pytest.approx(np.sqrt(2) * alone, rel=0.02)


def test_intervals_of_unpaired_differences_cover():
    rng, hits = np.random.default_rng(0), []
    for _ in range(400):
        sides = [rng.exponential(size=n) for n in (80, 150)]
        pair = [Estimate(x.mean(), (x.sum() - x) / (len(x) - 1)) for x in sides]  # of mean 1
        found = difference(*on_joint_groups(*pair))
        hits.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_leaving_out_a_group_of_one_sample_leaves_the_other_as_it_is():
    one, other = Estimate(1.0, np.array([0.9, 1.1])), Estimate(2.0, np.array([2.1, 1.8, 2.2]))
    first, second = on_joint_groups(one, other)
    assert first.left_out.tolist() == [0.9, 1.1, 1.0, 1.0, 1.0]
    assert second.left_out.tolist() == [2.0, 2.0, 2.1, 1.8, 2.2]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"starts_hash": "other"}, "of different starts"),
        ({"seed": 1}, "of different seeds"),
    ],
)
def test_what_is_not_paired_says_why(other, why):
    assert said(profile(), profile(**other))["unpaired"] == why


def test_without_a_truth_only_variances_are_compared():
    none = {"admissible": False, "status": "none", "reason": "λ"}
    found = compared(profile(), profile(facts=none))
    assert "mse" not in found.quantities and "variance" in found.quantities
    left_out = said(profile(), profile(facts=none))["less_compared"]
    assert "errors and directions" in left_out


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "plain.h5", tmp_path / "better.h5"
    for path, scale in zip(paths, (2.0, 1.0), strict=True):
        profile(lambda n, scale=scale: scale + 0.1 * n).save(path)
    return paths


def test_the_page_and_the_document_say_the_same(files, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = ["compare", *map(str, files), "--output", str(page), "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(page)
    text = re.sub("<[^>]+>", "", page.read_text())
    (told,) = (
        each["sentence"] for each in document["findings"]
        if each["code"] == "error_ratio" and "model" in each["subject"]
    )  # fmt: skip
    assert "from plain to better" in told and "model, first action" in text
    rows = pd.DataFrame(document["table"])
    assert set(rows["quantity"]) >= {"mse", "bias2", "variance", "cosine"}


def test_runs_of_different_kinds_and_wrong_counts_are_refused(files, tmp_path, capsys):
    assert main(["compare", str(files[0])]) == 2
    assert "got 1 measurements, expected two" in capsys.readouterr().err
