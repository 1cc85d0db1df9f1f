"""An estimator's name is a label: what it is called moves no number, no light and no decision."""

import numpy as np
import pytest
import torch

import gradlab
from gradlab.measurement.arguments import estimators_at
from gradlab.runs.decision_rules import judged_estimator
from gradlab.tasks import linear_quadratic
from gradlab.truth.lqr import ExactCritic
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.key_numbers import losses
from gradlab.verdicts.measurement.recommendation import recommendation
from tests.measurement.turned import feedback, turned

TWO = torch.eye(2, dtype=torch.float64)
GAMMA, H = 0.8, 2
OURS = (
    "data", "model", "mixed", "true_dynamics", "model_all", "mixed_all", "true_dynamics_all",
    "true_dynamics_score",
)  # fmt: skip
ARBITRARY = ("a", "b", "c", "d", "e", "f", "g", "h")
MISLEADING = (
    "true_dynamics", "mixed", "data", "model_all", "mixed_all", "true_dynamics_score", "model",
    "true_dynamics_all",
)  # fmt: skip
LEFT_OUT = {
    "all": (), "without model_all": ("model_all",), "without a model's": ("model", "model_all"),
}  # fmt: skip


def measured(names, task, without=()):
    """The default estimators under other names, from the same starts."""
    critic = ExactCritic(task.simulator, -0.5 * TWO, GAMMA)
    policy = gradlab.networks.policies.Gaussian(feedback(-0.1 * TWO), 0.2)
    own = estimators_at(task, critic, None, H, every=True, also=("score",))
    given = {
        called: own[name] for called, name in zip(names, OURS, strict=True) if name not in without
    }
    return gradlab.measure(task, policy, critic, given, horizon=H, starts=16, judges=4)


def world():
    return linear_quadratic(
        A=0.9 * turned(0.3), B=0.5 * TWO, Q=TWO, R=0.1 * TWO,
        start_mean=torch.tensor([0.6, -0.3]).double(), start_covariance=0.5 * TWO, discount=GAMMA,
        prior=(0.9 * turned(0.3), 0.5 * turned(0.9)),
    )  # fmt: skip


def decisions(profile, called):
    """All that is decided, in our names."""
    ours = dict(zip(called, OURS, strict=True))

    def back(cells):
        return [(ours[name], h) for name, h in cells]

    found = facts(profile)
    choice = gradlab.choose(profile)
    screen = recommendation(found)
    return {
        "judged": ours[judged_estimator(profile)],
        "own": [ours[name] for name in found.own],
        "best": back([found.best]),
        "kept": back(found.kept),
        "beyond": back([found.beyond[found.best]]) if found.best in found.beyond else None,
        "stepped": back(found.realised.stepped),
        "losses": losses(found, found.best),
        "light": screen.light,
        "numbers": [fact.text for fact in screen.numbers],
        "chosen": back([choice.best.cell]) + back(choice.best.kept),
        "competitors": [ours[name] for name in choice.estimators],
        "excluded": [ours[name] for name in choice.excluded],
        "weights": [choice.pair.gain.share, back(choice.pair.cells)],
    }


@pytest.fixture(scope="module")
def task():
    return world()


@pytest.fixture(scope="module")
def arbitrary(task):
    return measured(ARBITRARY, task)


@pytest.mark.parametrize(
    ("left_out", "names"),
    [("all", ARBITRARY), ("without model_all", MISLEADING), ("without a model's", MISLEADING)],
    ids=["arbitrary", "misleading", "misleading, without a model"],
)
@pytest.mark.sampled(1)
def test_names_are_labels(task, arbitrary, left_out, names, tmp_path):
    without = LEFT_OUT[left_out]
    plain = measured(OURS, task, without)
    renamed = arbitrary if names is ARBITRARY else measured(names, task, without)
    renamed = gradlab.load(renamed.save(tmp_path / "renamed.h5"))
    for column in plain.columns:
        np.testing.assert_array_equal(plain.columns[column], renamed.columns[column])
    one, other = plain.table(), renamed.table()
    called = dict(zip(names, OURS, strict=True))
    assert list(one["estimator"]) == [called[name] for name in other["estimator"]]
    np.testing.assert_equal(decisions(renamed, names), decisions(plain, OURS))


def test_identities_are_those_of_the_objects_and_survive_a_file(arbitrary, tmp_path):
    systems = [(*each.systems, each.actions) for each in arbitrary.identities.values()]
    sim, model = "simulator", "model"
    assert systems == [
        (sim, "none", "first"), (model, model, "first"), (sim, model, "first"), (sim, sim, "first"),
        (model, model, "all"), (sim, model, "all"), (sim, sim, "all"), (sim, "none", "score"),
    ]  # fmt: skip
    control = [name for name, each in arbitrary.identities.items() if each.control]
    assert control == ["d", "g"]
    loaded = gradlab.load(arbitrary.save(tmp_path / "one.h5"))
    assert loaded.identities == arbitrary.identities
