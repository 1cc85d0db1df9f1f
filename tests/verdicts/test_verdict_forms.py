"""Forms of the verdict beyond the horizon: the set, growth, health, steps, order."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from gradlab.choice import Choice, DirectionCosine
from gradlab.runs.check_results import EFFECT, FINITE, CheckResult
from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.intervals import Interval
from gradlab.tools.remedies.findings import remedy
from gradlab.verdicts.measurement.verdict import ORDER, Evidence, verdict
from gradlab.wording import span
from tests.runs.planted_gains import planted_jumps
from tests.verdicts.planted_profiles import FLAT, H, planted, said, u_shape


def test_the_set_of_horizons_holds_all_that_may_be_best_and_what_would_shrink_it():
    text = said(planted(lambda n: 1.0 + 0.01 * abs(n - 5), lambda n: 0.9, noise=0.1))[
        "horizon"
    ].text
    inside = text.split("95% set: ")[1].split(")")[0]
    assert inside.startswith(("0–12", "0–1", "1–")) and "more starts would separate" in inside
    sharp = said(planted(u_shape, lambda n: 0.9, noise=0.001))["horizon"].text
    assert "smallest at h = 5 (95% set: 5)" in sharp


def test_exact_ties_cannot_be_separated_by_any_number_of_samples():
    tied = planted(lambda n: 1.0, lambda n: 0.9)
    same = tied.left_out[1, :, 1:2].repeat(H + 1, axis=1)
    left_out = tied.left_out.copy()
    left_out[1] = same
    text = said(replace(tied, left_out=left_out))["horizon"].text
    assert "95% set: 0–12; no affordable number of starts would separate them" in text


def with_mixed(error, actions="first"):
    """The planted profile with a third estimator of that error."""
    three = FLAT.left_out[[0, 1, 1]].copy()
    q = FLAT.quantities.index("mse")
    three[2, q] *= error
    columns = {name: each[[0, 1, 1]].copy() for name, each in FLAT.columns.items()}
    columns["value"][2, q] *= error
    config = {**FLAT.config, "actions": {"model": "first", "mixed": actions, "data": "first"}}
    return replace(
        FLAT, estimators=("data", "model", "mixed"), columns=columns, count=FLAT.count[[0, 1, 1]],
        method=FLAT.method[[0, 1, 1]], left_out=three, config=config,
    )  # fmt: skip


def test_a_far_better_estimator_is_named_and_a_little_better_one_is_not():
    text = said(with_mixed(0.1))["horizon"].text
    assert "The mixed gradient (simulator states, model Jacobians) at h = " in text
    assert "is 10× more accurate than that (CI" in text
    assert "mixed" not in said(with_mixed(0.8))["horizon"].text


def test_an_estimator_under_another_truth_is_no_rival():
    assert "mixed" not in said(with_mixed(0.1, actions="all"))["horizon"].text


def test_without_a_truth_only_the_agreement_of_estimators_is_said():
    ends = Interval(0.7, 0.9, 0.05, "planted")
    told = DirectionCosine(("model", 3), ("mixed", 3), 0.8, ends)
    known = Evidence(Choice(("model",), {}, 256, 256, False, agreement=(told,)), None, {})
    facts = {"admissible": False, "status": "none", "reason": "no truth here"}
    sentences = verdict(planted(lambda n: 1.0, lambda n: 0.9, **facts), known)
    assert [each.about for each in sentences] == ["truth", "agreement", "variance"]
    assert "model, h = 3 and mixed, h = 3: 0.8 (CI 0.7–0.9)" in sentences[1].text


def test_the_lyapunov_exponent_predicts_a_doubling_time():
    grown = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 2 ** (n / 1.8), lyapunov=0.19)
    text = said(grown)["variance"].text
    assert "fastest start, λ = 0.19 per step, predicts 1.8" in text  # ln 2 / 0.38
    calm = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 2 ** (n / 1.8), lyapunov=-0.1)
    assert "Lyapunov" not in said(calm)["variance"].text


# Forms 7 and 8 -----------------------------------------------------------------------------------


def test_lost_samples_and_idle_actions_are_counted_in_the_verdict():
    lost = CheckResult(
        FINITE, "model: 2 of 64 groups from h = 9 on", "use a shorter horizon", False
    )
    idle = CheckResult(
        f"{EFFECT}, model", "action 3 has no effect on any reward", "dead path?", False
    )
    sentences = verdict(replace(FLAT, sanity=(lost, idle)))
    ill = [each.text for each in sentences if each.about == "health"]
    assert ill == [
        "Model: 2 of 64 groups from h = 9 on: use a shorter horizon.",
        "Action 3 has no effect on any reward: dead path?.",
    ]
    assert "sanity" not in {each.about for each in sentences}
    healthy = CheckResult(FINITE, "all are finite", "nothing is lost", True)
    assert "health" not in said(replace(FLAT, sanity=(healthy,)))


def test_what_a_trial_at_an_updates_length_found_is_said_in_one_sentence():
    told = {
        kind: said(replace(FLAT, jumps=planted_jumps(kind, missing=300)))["jumps"]
        for kind in ("harmful", "harmless", "open", "rough", "curved", "smooth")
    }
    assert told["harmful"].text == (
        "The return jumps (9 of 24 starts, near step 21): backpropagation promises +104 per unit "
        "step and brings +13."
    )
    assert "without harm" in told["harmless"].text and "+105" in told["harmless"].text
    assert "about 300 more starts would tell" in told["open"].text
    assert told["rough"].text.startswith("The return is rough:")
    assert "does not jump" in told["curved"].text and "is smooth" in told["smooth"].text
    assert [kind for kind, one in told.items() if not one.decided] == ["open"]
    assert "jumps" not in said(FLAT)


def test_returns_that_are_lost_are_the_reason_why_it_is_open():
    lost = planted_jumps("open", missing=-1, lost=(0, 3, 9))
    text = said(replace(FLAT, jumps=lost))["jumps"].text
    assert text.startswith("From 3 of 128 starts the return leaves the finite numbers")
    assert "by 4%" in text and text.endswith("what backpropagation promises is open.")
    both = said(replace(FLAT, jumps=planted_jumps("harmful", lost=(0, 0, 9))))["jumps"].text
    assert "brings +13." in both and both.endswith("where actions move by 12%.")


@pytest.mark.parametrize("kind", ["harmful", "rough", "open"])
def test_a_truth_that_does_not_hold_is_said_before_it(kind):
    about = [each.about for each in verdict(replace(FLAT, jumps=planted_jumps(kind)))]
    assert about[0] == "jumps" and "truth" in about[1:]


def test_horizons_that_differ_by_chance_alone_are_rarely_named():
    """25 horizons, 5 trials, no effect: any horizon is named in at most 5% of repetitions."""

    @dataclass(frozen=True)
    class Chance:
        logs: np.ndarray  # [trials, horizons]

        samples = "5 fits"
        groups = 5
        horizons = tuple(range(1, 26))

        def ratio(self, quantity, horizon):
            values = self.logs[:, horizon - 1]
            mean, se = values.mean(), values.std(ddof=1) / 5**0.5
            half = 2.776 * se
            return LogRatio(mean, mean - half, mean + half, se)

        def error(self, horizon):
            return 1.0

        def least(self):
            return None

    rng = np.random.default_rng(0)
    named = 0
    for _ in range(400):
        noise = rng.standard_normal((5, 25)) + rng.standard_normal((5, 1))
        named += remedy(Chance(noise), "a placebo").decided
    assert named / 400 < 0.07
    real = Chance(-3.0 + 0.3 * rng.standard_normal((5, 25)))
    assert "better at h = 1–25" in remedy(real, "a cure").text


def test_sentences_stand_in_the_order_in_which_they_call_for_action():
    bad = CheckResult("saturated actions", "90%", "most", False)
    grown = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 2 ** (n / 1.8))
    found = [each.about for each in verdict(replace(grown, sanity=(bad,)))]
    assert found == sorted(found, key=ORDER.index)
    assert found[0] == "horizon" and "variance" in found


def test_what_is_undecided_and_calls_for_nothing_comes_last():
    flat = verdict(FLAT)[-1]
    assert flat.about == "variance" and not flat.decided


@pytest.mark.parametrize("status", ["cut", "imprecise"])
def test_a_truth_that_is_not_whole_comes_first(status):
    facts = {"status": status, "reason": "r", "missing": 0, "standard_error": 0.5}
    assert verdict(planted(lambda n: 1.0, lambda n: 0.9, **facts))[0].about == "truth"


def test_an_interval_that_is_no_number_is_unknown():
    assert span(float("nan"), float("nan")) == "unknown" == span(0.1, float("nan"))
    assert span(0.1, 0.2) == "0.1–0.2"
