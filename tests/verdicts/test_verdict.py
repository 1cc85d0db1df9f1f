"""Every sentence on planted profiles whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from gradlab.runs.check_results import CheckResult
from gradlab.runs.decision_rules import growth_of, needed_batch, ratio_to_best
from gradlab.verdicts.measurement.verdict import verdict
from tests.verdicts.planted_profiles import H, directed, planted, said, u_shape


def test_heavy_tails_are_named_where_they_are():
    heavy = planted(u_shape, lambda n: 0.9, tails=lambda n: 2.5 if n > H - 3 else 1.0)
    text = said(heavy)["tails"].text
    assert "At 3 horizons a few starts carry much of the model gradient" in text
    assert "tail index up to 2.5" in text
    light = planted(u_shape, lambda n: 0.9, tails=lambda n: 1.05)
    assert "tails" not in said(light) and "tails" not in said(planted(u_shape, lambda n: 0.9))
    everywhere = planted(u_shape, lambda n: 0.9, tails=lambda n: 2.0)
    assert "At every horizon" in said(everywhere)["tails"].text


def test_usable_horizons_are_a_range_of_those_measured():
    sentence = said(planted(lambda n: 1.0, lambda n: 0.9 if n <= 7 else 0.5))["horizon"]
    assert sentence.decided
    assert sentence.text.startswith("Usable horizons of the model gradient: 1–7 (of 1–12 measured")
    assert "not below" not in sentence.text


def test_a_range_that_begins_late_says_why():
    late = said(planted(lambda n: 1.0, lambda n: 0.9 if n >= 6 else -0.5))["horizon"]
    assert late.decided
    assert "Usable horizons of the model gradient: 6–12 (of 1–12" in late.text
    assert "not below: at h = 1 its cosine with the truth is -0.50" in late.text
    steep = said(planted(u_shape, lambda n: 0.9))["horizon"].text
    assert "gradient: 2–8 (of" in steep
    assert "at h = 1 its mean squared error is 2.2× the smallest" in steep


def test_no_usable_horizon_is_said_with_the_reason():
    sentence = said(planted(lambda n: 1.0, lambda n: 0.3))["horizon"]
    assert sentence.decided
    assert sentence.text.startswith("No horizon of the model gradient is usable")
    assert "cosine with the truth is 0.3" in sentence.text


def test_usable_horizons_in_doubt_are_undecided_and_ask_for_samples():
    profile = planted(lambda n: 1.0, lambda n: 0.705, noise=0.01)
    sentence = said(profile)["horizon"]
    assert not sentence.decided
    assert "Undecided whether the model gradient has a usable horizon: 1–12 may be" in sentence.text
    assert "more starts would" in sentence.text
    some = said(planted(lambda n: 1.0, lambda n: 0.9 if n > 3 else 0.705, noise=0.01))["horizon"]
    assert some.decided and "gradient: 4–12; undecided: 1–3 (of" in some.text


def test_the_samples_asked_for_decide_in_four_cases_of_five():
    profile = planted(lambda n: 1.0, lambda n: 0.9, data=1.08, noise=0.1)
    ratio = ratio_to_best(profile, ("data", 0), "model", list(range(1, H + 1)))
    assert ratio is not None and ratio.low < 0 < ratio.high
    # power 80%: 256 ((1.96 + 0.84) se / gap)² samples in all
    wanted = 256 * ((1.96 + 0.8416) * ratio.se / abs(ratio.value)) ** 2 - 256
    text = said(profile)["data or model"].text
    asked = int(text.split("about ")[1].split(" more starts")[0])
    assert wanted <= asked <= 1.1 * wanted


def test_samples_are_asked_for_by_the_error_where_the_direction_is_clear():
    # at h = 1 twice the least error to within the noise, the cosine far above 0.7
    profile = planted(
        lambda n: 2.02 if n == 1 else 1.0, lambda n: 0.95 if n == 1 else 0.5, noise=0.05
    )
    sentence = said(profile)["horizon"]
    assert sentence.text.startswith("Undecided whether the model gradient has a usable horizon: 1 ")
    ratio = ratio_to_best(profile, ("model", 1), "model", list(range(H + 1)))
    assert ratio is not None
    wanted = 256 * ((1.96 + 0.8416) * ratio.se / abs(ratio.value - np.log(2))) ** 2 - 256
    asked = int(sentence.text.split("about ")[1].split(" more starts")[0])
    assert wanted <= asked <= 1.1 * wanted


def test_errors_that_do_not_differ_are_called_the_same():
    sentences = said(planted(lambda n: 1.0, lambda n: 0.9, data=1.0, noise=1e-4))
    assert sentences["data or model"].decided
    assert "have the same error to within 5% (N = 256)" in sentences["data or model"].text
    assert "H = 12 has the error of the best to within 5%" in sentences["horizon"].text


def test_every_truth_is_said_with_its_own_error():
    facts = {"reason": "it converges", "standard_error": 0.03, "norm": 1.5}
    text = said(planted(lambda n: 1.0, lambda n: 0.9, **facts))["truth"].text
    assert text == "Truth: it converges; its standard error is 2% of its norm (N = 256)."


def test_a_cut_truth_comes_first_and_says_whether_it_diverges():
    facts = {"status": "cut", "reason": "the objective is cut at T = 40 steps"}
    profile = planted(lambda n: 1.0, lambda n: 0.9, lyapunov=0.1, **facts)
    profile = replace(profile, config={**profile.config, "discount": 0.98})
    first = verdict(profile)[0]
    assert first.text.startswith("Truth: the objective is cut at T = 40 steps; uncut it would div")
    far = replace(profile, truth={**profile.truth, "horizon": H + 28})
    # e^{28 (0.1 + ln 0.98)} = 9.3
    assert "the 28 steps beyond H = 12 make it up to 9.3× as large" in verdict(far)[0].text
    calm = replace(profile, truth={**profile.truth, "lyapunov": 0.01})
    assert "diverge" not in verdict(calm)[0].text


def test_a_truth_of_all_actions_has_an_error_of_its_own():
    facts = {"all_standard_error": 0.2, "all_norm": 1.0, "reason": "it converges"}
    profile = planted(lambda n: 1.0, lambda n: 0.9, **facts)
    profile = replace(profile, config={**profile.config, "actions": {"model": "all"}})
    assert "error is 20% of its norm" in said(profile)["truth"].text


def test_an_error_above_that_of_a_zero_gradient_is_pointed_out():
    text = said(planted(lambda n: 4.0, lambda n: 0.9, norm=1.0))["horizon"].text
    assert "still 4× (CI 3.8–4.2) that of a zero gradient (a smaller scale" in text
    backwards = said(planted(lambda n: 4.0, lambda n: -0.6, norm=1.0))["horizon"].text
    assert "that of a zero gradient (it points backwards)" in backwards
    assert "zero gradient" not in said(planted(lambda n: 0.5, lambda n: 0.9))["horizon"].text


def test_your_horizon_is_compared_with_the_best():
    text = said(planted(lambda n: 1.0 + n / 4, lambda n: 0.9))["horizon"].text
    assert "smallest at h = 0, the data gradient J_0 (95% set: 0)" in text
    assert "H = 12 has 4× the error of the best (CI 3.8–4.2)" in text


def test_gradients_that_stop_being_finite_are_pointed_out():
    profile = planted(
        lambda n: np.nan if n > 8 else 1.0, lambda n: 0.9, lambda n: np.nan if n > 8 else 1.0
    )
    sentences = said(profile)
    assert "is not finite from h = 9 on" in sentences["health"].text
    assert "gradient: 1–8 (of 1–8 measured" in sentences["horizon"].text
    assert "nan" not in " ".join(each.text for each in verdict(profile))


def test_a_critic_worse_than_none_is_named():
    text = said(planted(lambda n: 1.0, lambda n: 0.9, data=40.0))["data or model"].text
    assert "says more of the critic" in text


@pytest.mark.parametrize(
    ("data", "decided", "words"),
    [
        (3.0, True, "The model gradient at its best horizon h = 1 is 3× more accurate"),
        (0.25, True, "The data gradient is 4× more accurate than the model gradient"),
        (1.001, False, "Undecided whether the data gradient or the model gradient"),
    ],
)
def test_data_and_model_are_compared_at_the_models_best(data, decided, words):
    sentence = said(planted(lambda n: 1.0 + 0.5 * max(n - 1, 0), lambda n: 0.9, data=data))[
        "data or model"
    ]
    assert sentence.decided is decided
    assert words in sentence.text
    assert "N = 256" in sentence.text


def test_the_doubling_time_of_the_variance_is_found():
    sentence = said(planted(lambda n: 1.0, lambda n: 0.9, lambda n: 2 ** (n / 1.8)))["variance"]
    assert sentence.decided
    assert "doubles every 1.8 steps from h = 1 to 12 (CI" in sentence.text


def test_power_laws_and_plateaus_are_not_called_exponential():
    power = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 1.0 * max(n, 1) ** 2)
    assert "like h^2" in said(power)["variance"].text
    flat = said(planted(lambda n: 1.0, lambda n: 0.9))["variance"]
    assert not flat.decided
    slow = said(planted(lambda n: 1.0, lambda n: 0.9, lambda n: 1.05**n, noise=0.001))["variance"]
    assert "grows slowly, 1.7× from h = 1 to 12" in slow.text
    assert flat.text.startswith("No exponential growth")
    assert growth_of(power, "data") is None


def test_growth_of_either_law_warns_against_extrapolation():
    jagged = planted(
        lambda n: 1.0, lambda n: 0.9, lambda n: max(n, 1) ** 1.5 * (1 + 0.3 * (-1.0) ** n)
    )
    text = said(jagged)["variance"].text
    assert "doubles every" in text
    assert "fits as well, so do not extrapolate" in text


def test_without_a_truth_only_variances_are_judged():
    reason = "no truth here: λ = 0.3 per step against ln 1/γ = 0.02"
    sentences = verdict(
        planted(lambda n: 1.0, lambda n: 0.9, admissible=False, status="none", reason=reason)
    )
    assert [s.about for s in sentences] == ["truth", "variance"]
    assert sentences[0].text.startswith("No truth here: λ = 0.3")


def test_an_imprecise_truth_says_how_many_starts_it_needs():
    facts = {"status": "imprecise", "standard_error": 0.5, "missing": 768}
    sentences = verdict(planted(lambda n: 1.0, lambda n: 0.9, **facts))
    assert [s.about for s in sentences] == ["truth", "horizon", "data or model", "variance"]
    assert sentences[1].text.startswith("Of the model gradient the mean squared error is smallest")
    assert "rerun with --starts 1024, 4 times as many (≈ 2 min)" in sentences[0].text
    assert not sentences[0].decided


def test_a_truth_that_few_starts_carry_is_not_reliable_whatever_its_standard_error():
    few = {"reason": "the truth is not reliable at N = 256: 1% of the starts carry 83% of its "
           "squared gradients", "carried_by_few": True, "missing": 0}  # fmt: skip
    sentences = verdict(planted(lambda n: 1.0, lambda n: 0.9, status="imprecise", **few))
    assert sentences[0].about == "truth" and not sentences[0].decided
    assert sentences[0].text.startswith("Undecided: the truth is not reliable at N = 256: 1% of")
    assert "rerun" not in sentences[0].text


def test_an_unknown_number_of_missing_starts_is_not_invented():
    facts = {"status": "imprecise", "standard_error": 0.3, "missing": -1, "norm": 0.0}
    text = verdict(planted(lambda n: 1.0, lambda n: 0.9, **facts))[0].text
    assert "--starts" not in text
    assert "nan" not in text
    assert "inf" not in text


def test_the_batch_that_a_usable_direction_needs_is_said_with_its_interval():
    # 1 / (0.01 (0.97² / 0.9² − 1)) = 619
    sentence = said(directed(0.97, 0.01, noise=0.005))["samples"]
    assert sentence.decided
    assert "needs N′ ≈ 620 (CI " in sentence.text
    assert "You average N′ = 256" in sentence.text


def test_a_biased_direction_is_said_to_be_beyond_any_batch():
    sentence = said(directed(0.62, 0.01))["samples"]
    assert sentence.decided
    assert "no N′ reaches" in sentence.text
    assert "bias alone caps it at 0.62 (CI " in sentence.text


def test_a_direction_in_doubt_is_undecided_about_the_batch():
    sentence = said(directed(0.9, 0.01, noise=0.05))["samples"]
    assert not sentence.decided
    assert sentence.text.startswith("Undecided whether any N′ reaches")


def test_needed_batches_have_the_cosine_that_was_asked_for():
    """cosine of a batch's mean, simulated: the formula is a first-order one, good to a few %."""
    rng = np.random.default_rng(0)
    P, c, snr = 400, 0.95, 0.02
    truth = np.zeros(P)
    truth[0] = 1.0
    mean = np.zeros(P)
    mean[:2] = c, np.sqrt(1 - c**2)
    spread = np.sqrt(1 / snr / P)
    n = needed_batch(directed(c, snr, noise=0.002), "model", 3)
    assert n is not None and n.batch is not None
    draws = mean + spread / np.sqrt(n.size) * rng.normal(size=(4000, P))
    cosine = (draws @ truth) / np.linalg.norm(draws, axis=1)
    assert cosine.mean() == pytest.approx(0.9, abs=0.01)


def test_failed_checks_are_named_and_passed_ones_are_not():
    fine = CheckResult("float32", "cosine 1", "no", True)
    bad = CheckResult("saturated actions", "90%", "most", False)
    profile = planted(lambda n: 1.0, lambda n: 0.9)
    assert "sanity" not in said(replace(profile, sanity=(fine,)))
    text = said(replace(profile, sanity=(fine, bad)))["sanity"].text
    assert text == "1 of 2 sanity checks asks for attention: saturated actions."
