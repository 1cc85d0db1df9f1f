import json
import math

import numpy as np
import pytest
import torch

from analyses.bias_variance import report as bias_variance_report
from analyses.bias_variance import run as bias_variance
from gradlab.fitting import critics, policies
from gradlab.progress import silent

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def profile():
    with pytest.MonkeyPatch.context() as quick:
        for module in (critics, policies):
            quick.setattr(module, "UPDATES", 20)
        quick.setattr(critics, "TRAJECTORIES", 64)
        return bias_variance.measure(bias_variance.double_integrator(), 64, 6, silent)


def test_the_levels_are_data_driven_and_the_curves_are_not(profile):
    levels = [name for name, *_ in bias_variance_report.data_levels()]
    counts = dict(zip(profile.estimators, profile.count.max(axis=1) > 0, strict=True))
    assert all(counts[name].sum() == 1 for name in levels)
    assert all(
        counts[name].all() for name in ("prior", "wrong", "true", "mixed wrong", "early true")
    )


def test_models_start_where_their_critic_s_level_is(profile):
    level = profile.estimate("data 25", "bias2", 0).value
    for name in ("prior", "wrong", "true"):
        assert profile.estimate(name, "bias2", 0).value == pytest.approx(level, rel=1e-9)


def test_ratios_of_bias_have_intervals_or_say_that_they_are_not_resolved(profile):
    found = bias_variance_report.bias_ratio(profile, "early true", 6, 0)
    assert found.low < found.value < found.high
    assert str(bias_variance_report.Ratio(math.nan, math.nan, math.nan)) == "not resolved"


def test_the_light_pole_is_the_prior_but_for_its_pole():
    case = bias_variance.inverted_pendulum()
    state = 0.1 * torch.ones(3, 4).double()
    still, push = torch.zeros(3, 1).double(), torch.ones(3, 1).double()
    prior = case.task.prior
    # x takes no acceleration in an Euler step: noise and bias alone move it.
    for noise in (still, push):
        here, there = (system.step(state, still, noise) for system in (prior, case.wrong))
        torch.testing.assert_close(here.state[:, :2], there.state[:, :2])
        torch.testing.assert_close(here.reward, there.reward)
    gap = prior.step(state, push, still).state - case.wrong.step(state, push, still).state
    assert gap[:, 2:].abs().min() > 1e-3


@pytest.mark.parametrize("name", bias_variance.CASES)
def test_every_case_has_two_models_that_differ(name):
    case = bias_variance.CASES[name]()
    state = case.task.starts(4, torch.Generator().manual_seed(0))
    action = 0.1 * torch.ones(4, case.task.simulator.action_dim).double()
    here, there = (x.step(state, action).state for x in (case.task.prior, case.wrong))
    assert (here - there).abs().max() > 1e-4


def test_figures_tables_and_the_readme_are_written(profile, tmp_path):
    (tmp_path / "README.md").write_text("before\n<!-- numbers -->\nold\n<!-- /numbers -->\nafter\n")
    bias_variance_report.write({"double-integrator": profile}, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "old" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "| data 1 |" in text
    made = json.loads((tmp_path / "numbers.json").read_text())
    assert made["double-integrator"]["numbers"]["norm of the truth"] > 0
    assert (tmp_path / "double-integrator.png").stat().st_size < 400_000
    assert (tmp_path / "double-integrator.csv").stat().st_size > 1000


def test_a_measurement_is_kept_and_found_again(profile, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bias_variance, "measure", lambda *_: profile)
    first = bias_variance.kept("double-integrator", (64, 6), tmp_path)
    monkeypatch.delattr(bias_variance, "measure")
    again = bias_variance.kept("double-integrator", (64, 6), tmp_path)
    assert "measured before" in capsys.readouterr().out
    np.testing.assert_array_equal(first.columns["value"], again.columns["value"])
