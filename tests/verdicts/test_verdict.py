"""Every sentence on planted profiles whose answer is known, and the order of all."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from gradlab.choice import Choice, DirectionCosine
from gradlab.runs.check_results import EFFECT, FINITE, CheckResult
from gradlab.runs.decision_rules import LogRatio, growth_of, needed_batch, ratio_to_best
from gradlab.statistics.intervals import Interval
from gradlab.tools.remedies.findings import remedy
from gradlab.verdicts.measurement.verdict import ORDER, Evidence, verdict
from gradlab.wording import span
from tests.runs.planted_gains import planted_jumps
from tests.verdicts.planted_profiles import FLAT, H, directed, planted, said, u_shape

FINE = CheckResult("float32", "cosine 1", "no", True)
BAD = CheckResult("saturated actions", "90%", "most", False)
CUT = {"status": "cut", "reason": "the objective is cut at T = 40 steps", "lyapunov": 0.1}
FEW = "the truth is not reliable at N = 256: 1% of the starts carry 83% of its squared gradients"


def profile(**changed):
    """`FLAT` with other laws, facts of the truth, configuration, checks or jumps."""
    beside = {name: changed.pop(name) for name in ("sanity", "jumps") if name in changed}
    config = changed.pop("config", {})
    found = planted(**{"mse": lambda n: 1.0, "cosine": lambda n: 0.9} | changed)
    return replace(found, config={**found.config, **config}, **beside)


def grows(n):
    return 2 ** (n / 1.8)


def lost_beyond_8(n):
    return np.nan if n > 8 else 1.0


def jumps(kind, **more):
    return {"jumps": planted_jumps(kind, **more)}


SENTENCES = [  # what is planted, what it is about, is it decided, its words (¬: not in it)
    (dict(mse=u_shape, tails=lambda n: 2.5 if n > H - 3 else 1.0), "tails", None,
     "At 3 horizons a few starts carry much of the model gradient", "tail index up to 2.5"),
    (dict(mse=u_shape, tails=lambda n: 2.0), "tails", None, "At every horizon"),
    (dict(cosine=lambda n: 0.9 if n <= 7 else 0.5), "horizon", True,
     "Usable horizons of the model gradient: 1–7 (of 1–12 measured", "¬not below"),
    (dict(cosine=lambda n: 0.9 if n >= 6 else -0.5), "horizon", True,
     "Usable horizons of the model gradient: 6–12 (of 1–12",
     "not below: at h = 1 its cosine with the truth is -0.50"),
    (dict(mse=u_shape), "horizon", None, "gradient: 2–8 (of",
     "at h = 1 its mean squared error is 2.2× the smallest"),
    (dict(cosine=lambda n: 0.3), "horizon", True, "No horizon of the model gradient is usable",
     "cosine with the truth is 0.3"),
    (dict(cosine=lambda n: 0.705, noise=0.01), "horizon", False,
     "Undecided whether the model gradient has a usable horizon: 1–12 may be",
     "more starts would"),
    (dict(cosine=lambda n: 0.9 if n > 3 else 0.705, noise=0.01), "horizon", True,
     "gradient: 4–12; undecided: 1–3 (of"),
    (dict(mse=lambda n: 1.0 + 0.01 * abs(n - 5), noise=0.1), "horizon", None,
     "(95% set: 0–12; about ", "more starts would separate"),
    (dict(data=1.0, noise=1e-4), "data or model", True,
     "have the same error to within 5% (N = 256)"),
    (dict(data=1.0, noise=1e-4), "horizon", None, "H = 12 has the error of the best to within 5%"),
    (dict(mse=lambda n: 4.0, norm=1.0), "horizon", None,
     "still 4× (CI 3.8–4.2) that of a zero gradient (a smaller scale"),
    (dict(mse=lambda n: 4.0, cosine=lambda n: -0.6, norm=1.0), "horizon", None,
     "that of a zero gradient (it points backwards)"),
    (dict(mse=lambda n: 0.5), "horizon", None, "¬zero gradient"),
    (dict(mse=lambda n: 1.0 + n / 4), "horizon", None,
     "smallest at h = 0, the data gradient J_0 (95% set: 0)",
     "H = 12 has 4× the error of the best (CI 3.8–4.2)"),
    (dict(mse=lost_beyond_8, variance=lost_beyond_8), "health", None,
     "is not finite from h = 9 on"),
    (dict(mse=lost_beyond_8, variance=lost_beyond_8), "horizon", None,
     "gradient: 1–8 (of 1–8 measured"),
    (dict(data=40.0), "data or model", None, "says more of the critic"),
    (dict(mse=lambda n: 1.0 + 0.5 * max(n - 1, 0)), "data or model", True,
     "The model gradient at its best horizon h = 1 is 3× more accurate", "N = 256"),
    (dict(mse=lambda n: 1.0 + 0.5 * max(n - 1, 0), data=0.25), "data or model", True,
     "The data gradient is 4× more accurate than the model gradient", "N = 256"),
    (dict(mse=lambda n: 1.0 + 0.5 * max(n - 1, 0), data=1.001), "data or model", False,
     "Undecided whether the data gradient or the model gradient", "N = 256"),
    (dict(variance=grows), "variance", True, "doubles every 1.8 steps from h = 1 to 12 (CI"),
    (dict(variance=grows, lyapunov=0.19), "variance", None,  # ln 2 / 0.38
     "fastest start, λ = 0.19 per step, predicts 1.8"),
    (dict(variance=grows, lyapunov=-0.1), "variance", None, "¬Lyapunov"),
    (dict(variance=lambda n: 1.0 * max(n, 1) ** 2), "variance", None, "like h^2"),
    (dict(), "variance", False, "No exponential growth"),
    (dict(variance=lambda n: 1.05**n, noise=0.001), "variance", None,
     "grows slowly, 1.7× from h = 1 to 12"),
    (dict(variance=lambda n: max(n, 1) ** 1.5 * (1 + 0.3 * (-1.0) ** n)), "variance", None,
     "doubles every", "fits as well, so do not extrapolate"),
    (dict(reason="it converges", standard_error=0.03, norm=1.5), "truth", True,
     "Truth: it converges; its standard error is 2% of its norm (N = 256)."),
    (dict(reason="it converges", all_standard_error=0.2, all_norm=1.0,
          config={"actions": {"model": "all"}}), "truth", None, "error is 20% of its norm"),
    (CUT | dict(config={"discount": 0.98}), "truth", None,
     "Truth: the objective is cut at T = 40 steps; uncut it would div"),
    (CUT | dict(config={"discount": 0.98}, horizon=H + 28), "truth", None,
     "the 28 steps beyond H = 12 make it up to 9.3× as large"),  # e^{28 (0.1 + ln 0.98)}
    (CUT | dict(config={"discount": 0.98}, lyapunov=0.01), "truth", None, "¬diverge"),
    (dict(admissible=False, status="none", reason="no truth here: λ = 0.3"), "truth", None,
     "No truth here: λ = 0.3"),
    (dict(status="imprecise", standard_error=0.5, missing=768), "truth", False,
     "rerun with --starts 1024, 4 times as many (≈ 2 min)"),
    (dict(status="imprecise", standard_error=0.5, missing=768), "horizon", None,
     "Of the model gradient the mean squared error is smallest"),
    (dict(status="imprecise", standard_error=0.3, missing=-1, norm=0.0), "truth", None,
     "¬--starts"),
    (dict(status="imprecise", reason=FEW, carried_by_few=True, missing=0), "truth", False,
     "Undecided: the truth is not reliable at N = 256: 1% of", "¬rerun"),
    (dict(cosine=lambda n: 0.97, snr=0.01, noise=0.005), "samples", True,
     "needs N′ ≈ 620 (CI ", "You average N′ = 256"),  # 1 / (0.01 (0.97² / 0.9² − 1)) = 619
    (dict(cosine=lambda n: 0.62, snr=0.01), "samples", True, "no N′ reaches",
     "bias alone caps it at 0.62 (CI "),
    (dict(snr=0.01, noise=0.05), "samples", False, "Undecided whether any N′ reaches"),
    (dict(sanity=(FINE, BAD)), "sanity", None,
     "1 of 2 sanity checks asks for attention: saturated actions."),
    (jumps("harmful"), "jumps", True, "The return jumps (9 of 24 starts, near step 21): "
     "backpropagation promises +104 per unit step and brings +13."),
    (jumps("harmless"), "jumps", True, "without harm", "+105"),
    (jumps("open", missing=300), "jumps", False, "about 300 more starts would tell"),
    (jumps("rough"), "jumps", True, "The return is rough:"),
    (jumps("curved"), "jumps", True, "does not jump"),
    (jumps("smooth"), "jumps", True, "is smooth"),
    (jumps("open", missing=-1, lost=(0, 3, 9)), "jumps", False,
     "From 3 of 128 starts the return leaves the finite numbers", "by 4%",
     "what backpropagation promises is open."),
    (jumps("harmful", lost=(0, 0, 9)), "jumps", None, "brings +13.", "where actions move by 12%."),
]  # fmt: skip


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: f"{row[1]}: {row[3][:40]}")
def test_a_sentence_says_what_was_planted(row):
    changes, about, decided, *words = row
    found = profile(**changes)
    sentence = said(found)[about]
    assert decided in (None, sentence.decided)
    for word in words:
        assert (word.removeprefix("¬") in sentence.text) != word.startswith("¬"), sentence.text
    assert not re.search(r"\b(nan|inf)\b", " ".join(each.text for each in verdict(found)))


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        (dict(mse=u_shape, tails=lambda n: 1.05), "tails"), (dict(mse=u_shape), "tails"),
        (dict(sanity=(FINE,)), "sanity"), ({}, "jumps"),
        (dict(sanity=(CheckResult(FINITE, "all are finite", "nothing is lost", True),)), "health"),
    ],
)  # fmt: skip
def test_where_there_is_nothing_to_say_nothing_is_said(changes, about):
    assert about not in said(profile(**changes))


@pytest.mark.parametrize(
    ("changes", "abouts"),
    [
        (dict(admissible=False, status="none", reason="r"), ["truth", "variance"]),
        (dict(status="imprecise", standard_error=0.5, missing=768),
         ["truth", "horizon", "data or model", "variance"]),
        (CUT, ["truth"]), (jumps("harmful"), ["jumps"]), (jumps("rough"), ["jumps"]),
        (jumps("open"), ["jumps"]), (dict(variance=grows, sanity=(BAD,)), ["horizon"]),
    ],
)  # fmt: skip
def test_sentences_stand_in_the_order_in_which_they_call_for_action(changes, abouts):
    """What keeps the others from being believed comes first, what calls for nothing last."""
    found = verdict(profile(**changes))
    about = [each.about for each in found]
    assert about[: len(abouts)] == abouts and "variance" in about
    if abouts[-1] == "variance":
        assert about == abouts
    if abouts == ["horizon"]:
        assert about == sorted(about, key=ORDER.index)
    if abouts[0] == "jumps":
        assert "truth" in about
    assert "variance" in changes or (about[-1] == "variance" and not found[-1].decided)


@pytest.mark.parametrize(
    ("changes", "about", "cell", "gap"),
    [
        (dict(data=1.08, noise=0.1), "data or model", ("data", 0), 0.0),
        # At h = 1 twice the least error to within the noise, the cosine far above 0.7.
        (dict(mse=lambda n: 2.02 if n == 1 else 1.0, cosine=lambda n: 0.95 if n == 1 else 0.5,
              noise=0.05), "horizon", ("model", 1), np.log(2)),
    ],
)  # fmt: skip
def test_the_samples_asked_for_decide_in_four_cases_of_five(changes, about, cell, gap):
    found = profile(**changes)
    ratio = ratio_to_best(found, cell, "model", list(range(cell == ("data", 0), H + 1)))
    assert ratio.low < gap < ratio.high
    # power 80%: 256 ((1.96 + 0.84) se / gap)² samples in all
    wanted = 256 * ((1.96 + 0.8416) * ratio.se / abs(ratio.value - gap)) ** 2 - 256
    text = said(found)[about].text
    assert text.startswith("Undecided whether")
    assert wanted <= int(text.split("about ")[1].split(" more starts")[0]) <= 1.1 * wanted


def test_data_that_know_no_horizon_have_no_growth():
    assert growth_of(FLAT, "data") is None


def test_needed_batches_have_the_cosine_that_was_asked_for():
    """cosine of a batch's mean, simulated: the formula is a first-order one, good to a few %."""
    rng = np.random.default_rng(0)
    P, c, snr = 400, 0.95, 0.02
    truth, mean = np.eye(P)[0], np.zeros(P)
    mean[:2] = c, np.sqrt(1 - c**2)
    spread = np.sqrt(1 / snr / P)
    n = needed_batch(directed(c, snr, noise=0.002), "model", 3)
    draws = mean + spread / np.sqrt(n.size) * rng.normal(size=(4000, P))
    cosine = (draws @ truth) / np.linalg.norm(draws, axis=1)
    assert cosine.mean() == pytest.approx(0.9, abs=0.01)


def test_exact_ties_cannot_be_separated_by_any_number_of_samples():
    left_out = FLAT.left_out.copy()
    left_out[1] = left_out[1, :, 1:2].repeat(H + 1, axis=1)
    text = said(replace(FLAT, left_out=left_out))["horizon"].text
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


def test_a_far_better_estimator_is_named_and_a_little_better_one_or_one_of_another_truth_is_not():
    text = said(with_mixed(0.1))["horizon"].text
    assert "The mixed gradient (simulator states, model Jacobians) at h = " in text
    assert "is 10× more accurate than that (CI" in text
    assert "mixed" not in said(with_mixed(0.8))["horizon"].text
    assert "mixed" not in said(with_mixed(0.1, actions="all"))["horizon"].text


def test_without_a_truth_only_the_agreement_of_estimators_is_said():
    ends = Interval(0.7, 0.9, 0.05, "planted")
    told = DirectionCosine(("model", 3), ("mixed", 3), 0.8, ends)
    known = Evidence(Choice(("model",), {}, 256, 256, False, agreement=(told,)), None, {})
    sentences = verdict(profile(admissible=False, status="none", reason="no truth here"), known)
    assert [each.about for each in sentences] == ["truth", "agreement", "variance"]
    assert "model, h = 3 and mixed, h = 3: 0.8 (CI 0.7–0.9)" in sentences[1].text


def test_lost_samples_and_idle_actions_are_counted_in_the_verdict():
    lost = (FINITE, "model: 2 of 64 groups from h = 9 on", "use a shorter horizon", False)
    idle = (f"{EFFECT}, model", "action 3 has no effect on any reward", "dead path?", False)
    sentences = verdict(replace(FLAT, sanity=(CheckResult(*lost), CheckResult(*idle))))
    assert [each.text for each in sentences if each.about == "health"] == [
        "Model: 2 of 64 groups from h = 9 on: use a shorter horizon.",
        "Action 3 has no effect on any reward: dead path?.",
    ]
    assert "sanity" not in {each.about for each in sentences}


@dataclass(frozen=True)
class Chance:
    """25 horizons, 5 trials."""

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


def test_horizons_that_differ_by_chance_alone_are_rarely_named():
    """Without an effect any horizon is named in at most 5% of repetitions."""
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(400):
        noise = rng.standard_normal((5, 25)) + rng.standard_normal((5, 1))
        named += remedy(Chance(noise), "a placebo").decided
    assert named / 400 < 0.07
    real = Chance(-3.0 + 0.3 * rng.standard_normal((5, 25)))
    assert "better at h = 1–25" in remedy(real, "a cure").text


def test_an_interval_that_is_no_number_is_unknown():
    assert span(float("nan"), float("nan")) == "unknown" == span(0.1, float("nan"))
    assert span(0.1, 0.2) == "0.1–0.2"
