"""Two measurements side by side: what is refused, what is paired, and whether the errors hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradlab.cli import main
from gradlab.errors import InputError
from gradlab.reporting import render
from gradlab.reporting.kinds import compared as side_by_side
from gradlab.runs.comparison import compared
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import difference, on_joint_groups
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import Estimate
from gradlab.verdicts.comparison import comparison_verdict
from tests.runs.planted_pairs import profile


def said(first: Profile, second: Profile) -> list[str]:
    return [each.text for each in comparison_verdict(compared(first, second))]


def about(first: Profile, second: Profile, what: str) -> str:
    found = comparison_verdict(compared(first, second))
    return next(each.text for each in found if each.about == what and "model" in each.text)


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
    text = said(*(profile(**each) for each in parameters))[0]
    assert "they differ in prior push (1.0 → 0.8); paired, on the same starts and noise" in text


def test_a_changed_model_is_named_and_no_dictionary_is_cut_off():
    noise = ({"model": "given", "mixed": "given"}, {"model": "mean", "mixed": "given"})
    first, second = (
        profile(model=model, jacobian_noise=each)
        for model, each in zip(("LinearQuadratic 1a2b", "LearnedSystem 3c4d"), noise, strict=True)
    )
    text = said(first, second)[0]
    assert "they differ in model (LinearQuadratic 1a2b → LearnedSystem 3c4d)" in text
    assert "jacobian noise of model (given → mean)" in text and "{" not in text
    assert "model (" not in said(profile(), second)[0]  # an older file does not say


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
    assert apart.unpaired == "they are of different starts"
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
        ({"starts_hash": "other"}, "they are of different starts"),
        ({"seed": 1}, "their noise has different seeds"),
    ],
)
def test_what_is_not_paired_says_why(other, why):
    text = said(profile(), profile(**other))[0]
    assert f"not paired, since {why}: the errors of both add" in text


def test_without_a_truth_only_variances_are_compared():
    none = {"admissible": False, "status": "none", "reason": "λ"}
    found = compared(profile(), profile(facts=none))
    assert "mse" not in found.quantities and "variance" in found.quantities
    assert "errors and directions are left out" in said(profile(), profile(facts=none))[0]


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
    assert "better lowers the mean squared error of the model gradient" in text
    assert any("better lowers" in each["text"] for each in document["verdict"])
    rows = pd.DataFrame(document["table"])
    assert set(rows["quantity"]) >= {"mse", "bias2", "variance", "cosine"}


def test_runs_of_different_kinds_and_wrong_counts_are_refused(files, tmp_path, capsys):
    assert main(["compare", str(files[0])]) == 2
    assert "got 1 measurements, expected two" in capsys.readouterr().err


def test_several_measurements_are_each_compared_with_the_first(files, tmp_path):
    copied = tmp_path / "again.h5"
    copied.write_bytes(files[0].read_bytes())
    page, _ = side_by_side([*files, copied])
    text = re.sub("<[^>]+>", "", render(page))
    first, second = (path.stem for path in files)
    assert f"{first} and 2 others" in text and f"2 comparisons with {first}" in text
    assert f"{second} against {first}: it lowers" in text
    assert f"again and {first} are alike" in text
