"""Forms of the verdict beyond the horizon: sources, weights, series, health, steps, remedies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from gradlab.choice import Agreement, Choice, Contender, Mixing
from gradlab.runs.attribution import CAUSES, Account, Attribution, Entry, Part
from gradlab.runs.check_results import EFFECT, EMPIRICAL, FINITE, CheckResult
from gradlab.runs.comparison import compared
from gradlab.runs.decision_rules import LogRatio
from gradlab.runs.one_step import TRUTH, OneStepImprovement
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.verdicts.measurement.one_step import learning
from gradlab.verdicts.measurement.sources import source
from gradlab.verdicts.measurement.verdict import ORDER, Evidence, through_training, verdict
from gradlab.verdicts.measurement.weights import weights
from gradlab.verdicts.remedies.variance_and_bias import OfProfiles, remedy
from tests.runs.planted_pairs import profile as paired
from tests.verdicts.planted_profiles import H, planted, said, u_shape

FLAT = planted(lambda n: 1.0, lambda n: 0.9)


# Form 1 ------------------------------------------------------------------------------------------


def test_the_set_of_horizons_holds_all_that_may_be_best_and_what_would_shrink_it():
    text = said(planted(lambda n: 1.0 + 0.01 * abs(n - 5), lambda n: 0.9, noise=0.1))[
        "horizon"
    ].text
    inside = text.split("95% set: ")[1].split(")")[0]
    assert inside.startswith(("0–12", "0–1", "1–")) and "more samples would separate" in inside
    sharp = said(planted(u_shape, lambda n: 0.9, noise=0.001))["horizon"].text
    assert "smallest at h = 5 (95% set: 5)" in sharp


def test_exact_ties_cannot_be_separated_by_any_number_of_samples():
    tied = planted(lambda n: 1.0, lambda n: 0.9)
    same = tied.left_out[1, :, 1:2].repeat(H + 1, axis=1)
    left_out = tied.left_out.copy()
    left_out[1] = same
    text = said(replace(tied, left_out=left_out))["horizon"].text
    assert "95% set: 0–12; no affordable number of samples would separate them" in text


def with_mixed(error: float, actions: str = "first"):
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
    told = Agreement(("model", 3), ("mixed", 3), 0.8, ends)
    known = Evidence(Choice(("model",), {}, 256, 256, False, agreement=(told,)), None, {})
    facts = {"admissible": False, "status": "none", "reason": "no truth here"}
    sentences = verdict(planted(lambda n: 1.0, lambda n: 0.9, **facts), known)
    assert [each.about for each in sentences] == ["truth", "agreement", "variance"]
    assert "model, h = 3 and mixed, h = 3: 0.8 (CI 0.7–0.9)" in sentences[1].text


# Form 2 ------------------------------------------------------------------------------------------


def test_the_lyapunov_exponent_predicts_a_doubling_time():
    grown = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 2 ** (n / 1.8), lyapunov=0.19)
    text = said(grown)["variance"].text
    assert "Lyapunov exponent, 0.19 per step, predicts 1.8" in text  # ln 2 / 0.38
    calm = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 2 ** (n / 1.8), lyapunov=-0.1)
    assert "Lyapunov" not in said(calm)["variance"].text


# Form 3 ------------------------------------------------------------------------------------------


def part(name: str, value: float, spread: float = 0.02, total: float = 1.0) -> Part:
    low, high = value - spread, value + spread
    shares = (each / total for each in (value, low, high))
    return Part(name, value, spread / 2, low, high, *shares)


def attribution(shares: dict[str, float], spread: float = 0.02, **changed) -> Attribution:
    """One account of the model at h = 5 with entries of ∂f/∂a."""
    found = tuple(part(name, shares.get(name, 0.0), spread) for name in CAUSES)
    entries = (
        Entry("B", "B", "yaw rate", "steer", part("entry", 0.9 * shares.get("B", 0.0))),
        Entry("B", "B", "speed", "steer", part("entry", 0.1 * shares.get("B", 0.0))),
    )
    account = Account(
        "model", 5, part("total", 1.0), False, found, found, found, entries, (), (), (), ()
    )
    return Attribution((replace(account, **changed),), (), {}, 256, "grid", (), ())


def told(found: Attribution | None) -> str:
    (sentence,) = source(FLAT, found, "model")
    return sentence.text


def test_the_largest_share_is_named_with_its_entry_and_what_to_mend():
    text = told(attribution({"B": 0.8, "states": 0.06, "A": 0.14}))
    assert text.startswith("80% (CI 78% to 82%) of the squared bias of the model gradient at h = 5")
    assert "comes from ∂f/∂a, mostly yaw rate by steer (72%" in text
    assert "errors of states make 6% (CI 4% to 8%)" in text
    assert text.endswith("mend the model's derivatives first (N = 256).")


def test_shares_that_overlap_are_undecided():
    (sentence,) = source(FLAT, attribution({"B": 0.55, "A": 0.45}, spread=0.1), "model")
    assert not sentence.decided
    assert sentence.text.startswith("Undecided whether ∂f/∂a (55%")


def test_a_third_share_whose_interval_reaches_the_largest_is_its_rival():
    found = attribution({"B": 0.6, "A": 0.2})
    wide = tuple(
        part("states", 0.1, 0.7) if e.name == "states" else e for e in found.bias[0].shapley
    )
    text = told(replace(found, bias=(replace(found.bias[0], shapley=wide),)))
    assert text.startswith("Undecided whether ∂f/∂a (60%")
    assert "or states (10%" in text


def test_causes_that_cancel_are_said_to():
    text = told(attribution({"states": 3.4, "B": -2.5, "A": 0.1}, cancelling=("states", "B")))
    assert text.startswith("Causes cancel: shares of the squared bias of the model gradient")
    assert "340% (CI 338% to 342%) for states and -250%" in text
    assert "mending one of them alone may make it worse" in text


def test_a_bias_lost_in_noise_has_no_source():
    total = part("total", 0.1, 0.5)
    (sentence,) = source(FLAT, attribution({"B": 0.1}, total=total, lost=True), "model")
    assert not sentence.decided
    assert "Undecided what makes the squared bias of the model gradient at h = 5" in sentence.text
    assert "lost in noise (0.1, CI -0.4 to 0.6, N = 256)" in sentence.text


def test_without_stored_substitutions_the_form_is_silent():
    assert source(FLAT, None, "model") == []
    assert "source" not in said(FLAT)
    assert source(FLAT, attribution({"B": 0.8}), "mixed") == []


# Form 5 ------------------------------------------------------------------------------------------


def contender(name: str, mse: float, saved=None, against=(0.5, 0.7)) -> Contender:
    ends = Interval(0.9 * mse, 1.1 * mse, mse / 20, "planted")
    logs = None if against is None else Interval(*np.log(against), 0.1, "planted")
    kept = None if saved is None else Interval(*np.log(saved), 0.1, "planted")
    return Contender(name, np.array([0.3, 0.7]), mse, ends, 0.9, ends, logs, ends, kept)


def choice(*contenders: Contender) -> Choice:
    w = Weights(np.array([0.31, 0.69]), np.array([0.2, 0.6]), np.array([0.4, 0.8]), 1.0, 1.0, 1.0)
    pair = Mixing((("data", 0), ("model", 5)), w, w, contenders, 128)
    return Choice(("data", "model"), {}, 256, 256, True, pair=pair)


def test_measured_weights_are_judged_against_the_rule_and_the_best_scaled_one():
    rule = contender("MPG rule, iteration 0 of 9000", 2.0, saved=(0.3, 0.6))
    (sentence,) = weights(choice(contender("mse", 0.84), rule))
    assert sentence.decided
    assert "w_0 = 0.31 (CI 0.2–0.4), w_5 = 0.69 (CI 0.6–0.8)" in sentence.text
    assert "their MSE is 0.42× (CI 0.3–0.6) that of the MPG rule, iteration 0" in sentence.text
    assert "and 0.5–0.7× (95% CI) that of the best scaled single" in sentence.text


def test_weights_that_gain_nothing_are_undecided():
    rule = contender("MPG rule, iteration 0 of 9000", 0.9, saved=(0.8, 1.2))
    (sentence,) = weights(choice(contender("mse", 0.84, against=(0.9, 1.1)), rule))
    assert not sentence.decided
    assert sentence.text.startswith("Undecided if weights help. Measured optimal weights")


def test_weights_lost_in_noise_and_no_pair_have_their_own_words():
    (sentence,) = weights(choice(contender("mse", 0.84, against=None)))
    assert sentence.text.endswith("their error is lost in noise.")
    assert weights(None) == []
    assert weights(replace(choice(), pair=None)) == []


# Form 4, a series --------------------------------------------------------------------------------


def series(**errors: float):
    """Checkpoints at which the data's error is given; the model's is 1."""
    return {int(k[1:]): planted(lambda n: 1.0, lambda n: 0.9, data=d) for k, d in errors.items()}


def test_the_crossing_is_where_the_order_reverses_and_the_rule_is_judged_by_it():
    found = series(_3000=3.2, _5000=2.0, _5500=0.5, _9000=0.2)
    early = {0: 0.1, 4500: 0.6, 9000: 0.9}
    text = through_training(found, early).text
    model = f"the model gradient at h = {H}"
    assert text.startswith(f"At iteration 3000 {model} is 3.2× more accurate than the data")
    assert "the order reversed between iterations 5000 and 5500" in text
    assert "The rule schedule switches at 4500: too early by 500–1000." in text
    late = through_training(found, {0: 0.1, 5250: 0.2, 6000: 0.7}).text
    assert "too late by 500–1000" in late
    assert "switches at 5200, as measured" in through_training(found, {0: 0.1, 5200: 0.7}).text


def test_a_series_is_about_the_two_gradients_that_a_rule_weighs():
    good_inside = planted(lambda n: 4.0 if n == H else 0.1, lambda n: 0.9, data=2.0)
    text = through_training({0: good_inside, 1: good_inside}).text
    assert text.startswith("At iteration 0 the data gradient is 2× more accurate than the model")


def test_undecided_checkpoints_widen_the_crossing():
    found = series(_1000=3.0, _2000=1.0, _3000=0.3)
    assert "between iterations 1000 and 3000" in through_training(found).text


def test_no_crossing_a_return_and_a_rule_on_the_wrong_side_are_said():
    ahead = through_training(series(_1000=3.0, _2000=2.0), {0: 0.1, 1500: 0.8})
    assert f"the model gradient at h = {H} stays ahead up to iteration 2000" in ahead.text
    assert "switches at 1500: without a reason" in ahead.text
    back = through_training(series(_1=3.0, _2=0.3, _3=3.0), {0: 0.9, 3: 0.9}).text
    assert "reversed between iterations 1 and 2; and back between 2 and 3" in back
    assert "begins with the data gradient, the less accurate one here" in back
    tie = through_training(series(_1=1.001, _2=1.001))
    assert not tie.decided and tie.text.startswith("Undecided at every checkpoint")


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


def test_empirical_bias_is_said_with_its_twin_and_silent_where_it_was_not_tried():
    biased = CheckResult(EMPIRICAL, "first- and zeroth-order gradients disagree", "α = 0.2", False)
    fine = replace(biased, result="no disagreement in 16 states", passed=True)
    assert said(replace(FLAT, sanity=(biased,)))["empirical bias"].decided
    twin = said(replace(FLAT, sanity=(fine,)))["empirical bias"]
    assert not twin.decided and twin.text.startswith("No disagreement in 16 states")
    assert "empirical bias" not in said(FLAT)


# Form 11 -----------------------------------------------------------------------------------------


def stepped(model: float, true: float = 1.0, noise: float = 0.1, curvature: float = 0.01):
    rng = np.random.default_rng(0)
    cells = ((TRUTH, 0), ("model", 5), ("model", H))
    middle = np.array([true, model, 2 * model])[:, None]
    wobble = rng.normal(size=(3, 60))
    gain = middle + noise * (wobble - wobble.mean(axis=1, keepdims=True))
    found = OneStepImprovement(
        cells, gain, np.ones(60), 1e-3, 0.01, curvature, np.array([-1e-3, 0.0, 1e-3]), (0, 1),
        np.zeros((2, 3, 60)), 150, 256,
    )  # fmt: skip
    (sentence,) = learning(replace(FLAT, consequence=found), "model")
    return sentence


def test_a_step_is_told_by_its_gain_and_its_share_of_the_true_gain():
    sentence = stepped(0.71)
    assert sentence.decided
    assert (
        "One step of length 0.001 along the model gradient at h = 5 changes the return by +0.71"
        in (sentence.text)
    )
    assert "71% (CI 68% to 74%) of the true gradient's gain; at h = 12 142%" in sentence.text
    assert "60 starts that made no gradient" in sentence.text


def test_a_step_without_a_clear_gain_and_a_truth_without_one_are_undecided():
    assert stepped(0.01, noise=1.0).text.startswith("Undecided whether one step")
    lost = stepped(0.71, true=0.0)
    assert "the true gradient's own gain is in doubt" in lost.text
    assert "curvature is 30% of the slope even there" in stepped(0.71, curvature=0.3).text


def test_runs_without_steps_say_nothing_of_learning():
    assert learning(FLAT, "model") == []


# Form 10 -----------------------------------------------------------------------------------------


def remedied(mse, noise=0.02, **config):
    without = paired(lambda n: 1.0, noise=noise)
    return OfProfiles(compared(without, paired(mse, noise=noise, **config)))


def test_a_remedy_that_helps_far_and_harms_near_is_said_so():
    text = remedy(remedied(lambda n: 0.2 if n >= 8 else 1.5), "spectral normalisation").text
    assert text.startswith("Spectral normalisation ")
    assert "better at h = 8–12, worse at h = 1–7" in text
    assert "the least error over the horizons is 5× (CI" in text


def test_parts_of_a_remedy_carry_their_intervals():
    with_variance = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 1 / 31)
    without = paired()
    second = replace(with_variance, config=without.config)
    text = remedy(OfProfiles(compared(without, second)), "spectral normalisation").text
    assert "cuts variance 31× (CI" in text
    lost = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 0.0)
    pruned = OfProfiles(compared(without, replace(lost, config=without.config)))
    text = remedy(pruned, "pruning").text
    assert text.startswith("Pruning changes the variance by -1 (CI")


def test_a_remedy_without_a_clear_effect_is_not_shown_to_matter():
    sentence = remedy(remedied(lambda n: 0.99, noise=1.0, starts_hash="t"), "the DD loss")
    assert not sentence.decided
    assert sentence.text.startswith("The DD loss leaves variance at ")
    assert "not shown to matter here; " in sentence.text
    assert sentence.text.endswith(("more samples would tell.", "number of samples would tell."))
    none = remedy(OfProfiles(remedied(lambda n: 1.0).comparison, "mixed"), "the DD loss")
    assert none.text == "Undecided: the DD loss has no error to compare (N = 256)."


def test_what_a_remedy_costs_stands_beside_its_gain():
    text = remedy(
        remedied(lambda n: 0.2), "spectral normalisation", "a fit takes 1.6× as long"
    ).text
    assert text.endswith("lower; a fit takes 1.6× as long.")


# Order -------------------------------------------------------------------------------------------


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
