"""Measurements at several checkpoints: the order of data and model, and the rule's."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.choice.series import series
from gradlab.cli import main
from gradlab.errors import InputError
from gradlab.reporting.output import follow
from gradlab.statistics.rules import MpgWeights
from tests.first_screens import check_first_screen


class Exact(torch.nn.Module):
    """A constant bias on the exact Q of the regulator below makes J_0 as wrong as one likes."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, state, action):
        return -self.slope * (action**2).sum(dim=1) - (state * action).sum(dim=1)


@pytest.fixture(scope="module")
def profiles():
    """Two checkpoints of one task: an absurd critic first, a mild one later."""
    eye = torch.eye(1, dtype=torch.float64)
    task = gradlab.tasks.linear_quadratic(
        A=0.8 * eye, B=0.5 * eye, Q=eye, R=eye, noise_covariance=0.0 * eye,
        start_mean=torch.ones(1).double(), start_covariance=0.1 * eye, discount=0.9,
        prior=(0.7 * eye, 0.5 * eye),
    )  # fmt: skip
    policy = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(policy.weight, -0.1)
    return [
        gradlab.measure(task, policy, Exact(slope), horizon=4, starts=64, batch=16, law="start")
        for slope in (30.0, 1.0)
    ]


def test_errors_are_those_of_the_profiles(profiles):
    table = series(profiles, [0, 5000], 9000).table()
    for k, profile in zip((0, 5000), profiles, strict=True):
        own = profile.table()
        for label, name, h in (("data", "data", 0), ("model", "model", 4)):
            for quantity in ("bias2", "mse"):
                ours = table[(table["iteration"] == k) & (table["estimator"] == label)]
                theirs = own[(own["estimator"] == name) & (own["horizon"] == h)]
                values = [
                    each[each["quantity"] == quantity][["value", "ci_low", "ci_high"]].to_numpy()
                    for each in (ours, theirs)
                ]
                np.testing.assert_array_equal(*values)


def test_the_rule_is_mpgs_at_every_iteration(profiles):
    found = series(profiles, [0, 5000], 6000)
    for k, w in found.data_weight.items():
        assert w == pytest.approx(MpgWeights(ramp=6000)(k, (0, 4))[0])
    assert min(found.data_weight) == 0 and max(found.data_weight) == 5000


def test_checkpoints_are_put_in_order(profiles):
    found = series(profiles[::-1], [5000, 0], 9000)
    assert list(found.profiles) == [0, 5000]
    assert found.profiles[0] is profiles[0]


@pytest.mark.parametrize(
    ("iterations", "ramp", "message"),
    [
        ([0], 9000, "for 2 measurements"),
        ([3, 3], 9000, "expected different ones"),
        ([-1, 3], 9000, "expected different ones from 0"),
        ([0, 1], 0, "ramp is 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(profiles, iterations, ramp, message):
    with pytest.raises(InputError, match=message):
        series(profiles, iterations, ramp)


def test_measurements_of_unlike_kind_are_refused(profiles):
    other = replace(profiles[1], config={**profiles[1].config, "truth": "objective"})
    with pytest.raises(InputError, match="differ in truth"):
        series([profiles[0], other], [0, 1], 9000)


def test_the_command_writes_a_page_and_says_when_the_order_turns(profiles, tmp_path, capsys):
    files = [str(each.save(tmp_path / f"{k}.h5")) for k, each in enumerate(profiles)]
    page = tmp_path / "page.html"
    words = ["compare", *files, "--iterations", "0", "5000", "--output", str(page), "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    (sentence,) = document["verdict"]
    assert sentence["text"].startswith("At iteration 0 the model gradient at h = 4 is")
    assert "Weights" in page.read_text() or "Weight of the model" in page.read_text()
    assert {row["quantity"] for row in document["table"]} >= {"bias2", "weight_mse", "weight_rule"}
    assert main([*words[:2], "--iterations", "0", "--output", str(page)]) == 2
    assert "for 1 measurements" in capsys.readouterr().err


def test_the_first_screen_says_what_to_weigh_and_when(profiles, tab, tmp_path):
    files = [str(each.save(tmp_path / f"{k}.h5")) for k, each in enumerate(profiles)]
    page, _ = follow(files, [0, 5000], 9000)
    check_first_screen(tab, page, tmp_path)
    assert page.screen.headline.startswith("Weigh the model")
