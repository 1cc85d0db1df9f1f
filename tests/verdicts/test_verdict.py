"""Every sentence on planted profiles whose answer is known, and the order of all.

The sentence about the source of the squared bias.
"""

import re
from dataclasses import dataclass, replace
from math import nan
from types import SimpleNamespace

import numpy as np
import pytest

from gradlab.choice import Choice
from gradlab.findings import CODES, Finding
from gradlab.runs.attribution import CAUSES, Account, Attribution, Part, Place
from gradlab.runs.decision_rules import LogRatio, growth_of, ratio_to_best
from gradlab.runs.identity import by_known_name
from gradlab.statistics.comparison import Number
from gradlab.tools.remedies.page import sides
from gradlab.verdicts.attribution import screen, sentences, source
from gradlab.verdicts.choice import statements
from gradlab.verdicts.comparison import _who
from gradlab.verdicts.measurement.verdict import Basis, advice, verdict
from gradlab.verdicts.recommendation import Field
from gradlab.wording import percent, span, with_interval
from tests.verdicts.planted_profiles import (
    BAD,
    FINE,
    FLAT,
    SENTENCES,
    H,
    jumps,
    profile,
    said,
    u_shape,
)


def test_every_finding_has_its_row_in_the_table_and_no_sentence_a_number_that_is_none():
    for changes in (row for rows in SENTENCES.values() for row in rows):
        found = verdict(profile(**changes))
        assert {each.code for each in found if not each.text} <= CODES.keys()
        assert not re.search(r"\b(nan|inf)\b", " ".join(each.said for each in found))


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        (dict(mse=u_shape, tails=lambda n: 1.05), "heavy"), (dict(mse=u_shape), "heavy"),
        (dict(sanity=(FINE,)), "float32"), ({}, "jumps"), ({}, "gradient_not_finite"),
    ],
)  # fmt: skip
def test_where_there_is_nothing_to_say_nothing_is_said(changes, begins):
    assert not any(code.startswith(begins) for code in said(profile(**changes)))


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        (dict(admissible=False, status="none", reason="r"), "truth_none"),
        (dict(status="imprecise", standard_error=0.5, missing=768), "truth_imprecise"),
        (jumps("harmful"), "jumps"), (jumps("rough"), "jumps"),
        (jumps("open"), "jumps"), (dict(sanity=(BAD,)), "actions_saturated"),
        ({}, "usable_horizons"),
    ],
)  # fmt: skip
def test_what_keeps_the_others_from_being_believed_comes_first(changes, first):
    found = verdict(profile(**changes))
    assert found[0].code == first and any(each.code.startswith("variance") for each in found)


def test_the_samples_asked_for_decide_in_four_cases_of_five():
    """At h = 1 twice the least error to within the noise, the cosine far above 0.7."""
    found = profile(
        mse=lambda n: 2.02 if n == 1 else 1.0, cosine=lambda n: 0.95 if n == 1 else 0.5, noise=0.05
    )
    ratio, gap = ratio_to_best(found, ("model", 1), "model", list(range(H + 1))), np.log(2)
    assert ratio.low < gap < ratio.high
    # power 80%: 256 ((1.96 + 0.84) se / gap)² samples in all
    wanted = 256 * ((1.96 + 0.8416) * ratio.se / abs(ratio.value - gap)) ** 2 - 256
    usable = said(found)["usable_horizons"]
    assert (usable.decision, usable.at) == ("undecided", "1")
    assert wanted <= usable.more <= 1.1 * wanted
    assert usable.sentence.endswith(f"Not decided: about {usable.more:,} more samples would tell.")


def test_a_longer_horizon_is_held_against_the_best_one():
    """u(12) = 4.675 and u(5) = 1."""
    found = said(profile(mse=u_shape, noise=0.001, snr=0.5))
    best, longest, data = (
        found[code] for code in ("best_horizon", "longest_horizon", "data_against_model")
    )
    assert (best.value, best.at) == (5, "5")
    assert longest.value == pytest.approx(u_shape(H)) and longest.decision == "fail"
    assert longest.low < longest.value < longest.high and longest.threshold == 2
    assert data.value == pytest.approx(3.0) and data.decision == "pass"


@pytest.mark.parametrize(("cosine", "code"), [(0.95, "batch_for_direction"),
                                              (0.85, "biased_direction")])  # fmt: skip
def test_the_batch_of_a_good_direction_is_known_where_there_is_one(cosine, code):
    """cos(N) = c / √(1 + 1/(N snr)) is 0.9 at N = 1/(snr ((c/0.9)² − 1))."""
    found = said(profile(mse=u_shape, cosine=lambda n: cosine, snr=0.02))[code]
    wanted = np.ceil(50 / ((cosine / 0.9) ** 2 - 1))
    assert found.value == pytest.approx(wanted if cosine > 0.9 else cosine)
    assert found.decision == ("pass" if cosine > 0.9 else "fail")
    assert found.low < found.value < found.high


def test_data_that_know_no_horizon_have_no_growth():
    assert growth_of(FLAT, "data") is None


def test_a_true_gradient_of_0_is_not_lost_in_its_error():
    nothing = profile(status="imprecise")
    truth = nothing.truth | {"standard_error": 0.0, "norm": 0.0, "missing": 0}
    assert "truth_zero" in said(replace(nothing, truth=truth))


def test_without_a_truth_only_the_agreement_of_estimators_is_said():
    cells = ("model", 3), ("mixed", 3)
    told = (*cells, Number(0.8, 0.7, 0.9, 256))
    known = Basis(Choice(("model",), {}, 256, 256, False, agreement=(told,)), None)
    sentences = verdict(profile(admissible=False, status="none", reason="no truth here"), known)
    codes = [each.code for each in sentences]
    assert codes == ["truth_none", "variance_slope", "agreement"]
    assert (sentences[2].subject, sentences[2].at) == ("model and mixed", "h = 3")
    assert "0.80 (CI 0.70–0.90)" in sentences[2].sentence
    lost = (*cells, Number(nan, -1.0, -0.04, 256))
    # The square of a norm is corrected for noise: near zero a quotient is no cosine.
    noise = (*cells, Number(950.0, -1.0, 1.0, 256))
    for unknown in ((lost,), (noise,), (lost, noise)):
        choice = Choice(("model",), {}, 256, 256, False, agreement=(told, *unknown))
        first, second = statements(choice)
        assert (first.value, second.value) == (0.8, len(unknown))
        assert second.decision == "undecided"


def test_lost_samples_and_idle_actions_are_counted_in_the_verdict():
    lost = Finding("gradients_lost", "fail", "model", 2, n=64, at="h = 9")
    idle = Finding("action_idle", "fail", "action 3", 9, at="model")
    sentences = verdict(replace(FLAT, sanity=(lost, idle, FINE)))
    assert [each for each in sentences if each.decision == "fail"] == [lost, idle]


def test_a_saturated_policy_is_said_before_what_is_recommended():
    assert advice(replace(FLAT, sanity=(FINE, BAD))).notice == BAD.said
    sound = replace(FLAT, sanity=(FINE, replace(BAD, decision="pass")))
    assert advice(sound).notice == advice(FLAT).notice == ""


@dataclass(frozen=True)
class Chance:
    """25 horizons, 5 trials."""

    logs: np.ndarray  # [trials, horizons]
    groups = 5
    horizons = tuple(range(1, 26))

    def ratio(self, quantity, horizon):
        values = self.logs[:, horizon - 1]
        mean, se = values.mean(), values.std(ddof=1) / 5**0.5
        half = 2.776 * se
        return LogRatio(mean, mean - half, mean + half, se)


def test_horizons_that_differ_by_chance_alone_are_rarely_named():
    """Without an effect any horizon is named in at most 5% of repetitions."""
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(400):
        noise = rng.standard_normal((5, 25)) + rng.standard_normal((5, 1))
        named += any(sides(Chance(noise)))
    assert named / 400 < 0.07
    real = Chance(-3.0 + 0.3 * rng.standard_normal((5, 25)))
    assert sides(real) == (list(range(1, 26)), [])


def test_an_interval_that_is_no_number_is_unknown():
    assert span(float("nan"), float("nan")) == "unknown" == span(0.1, float("nan"))
    assert span(0.1, 0.2) == "0.1–0.2"


def test_a_square_below_zero_is_known_from_above_alone():
    """As docs/report.md says of what is corrected for noise."""
    assert with_interval(-1.8, 0.0, 40.0, "×", "N = 64") == "at most 40× (95%, N = 64)"
    field = Field.ranged("error", (-0.0085, 0.0, 0.075), "")
    assert (field.name, field.text) == ("error", "at most 0.075")
    assert with_interval(-0.5, -1.0, 2.0) == "-0.5 (CI -1 to 2)"


def test_gradients_of_one_kind_are_told_apart_where_both_are_compared():
    def named(*names: str) -> str:
        compared = SimpleNamespace(
            estimators=names, first=SimpleNamespace(identities=by_known_name(names))
        )
        return _who(compared, names[:2])

    assert named("model", "data") == "model, first action and data (critic only)"
    both = "model, first action and model, BPTT"
    assert named("model", "model_all", "data") == both


@pytest.mark.parametrize("widest", [1.0, 0.1, 0.01, 2e-3])
def test_the_ends_of_an_interval_are_told_apart_around_their_value(widest):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        value = rng.choice([-1, 1]) * 10 ** rng.uniform(-8, 8)
        low, high = np.sort(value + abs(value) * rng.uniform(-widest, widest, 2))
        value = rng.uniform(low, high)
        text = with_interval(value, low, high, "×", "N = 64")
        found = re.fullmatch(r"(.+)× \(CI ([^–t]+)(?:(?: to |–)(.+))?, N = 64\)", text)
        one = found[3] or found[2]  # ends that no five digits tell apart
        number, first, last = (
            float(each.replace(",", "")) for each in (found[1], found[2].strip(), one)
        )
        assert first <= number <= last, text
        if high - low > 1e-3 * abs(value):
            assert first < last, text
        for shown, exact in ((first, low), (last, high)):
            assert abs(shown - exact) <= 0.051 * abs(exact), text


def part(kind, cause, value, spread=0.02, **place):
    low, high = value - spread, value + spread
    return Part(Place(kind, cause, **place), value, spread / 2, low, high, value, low, high)


def attribution(shares, spread=0.02, first=None, replaced=True, cures=None, total=None):
    """One account of the model at h = 5 with entries of ∂f/∂a."""
    top = max(shares, key=lambda name: shares[name])
    entries = {"yaw rate": 0.9, "speed": 0.1}
    parts = [
        total or part("total", "total", 1.0),
        *(part("shapley", name, shares.get(name, 0.0), spread) for name in CAUSES),
        *(part("first", name, (first or shares).get(name, 0.0), spread) for name in CAUSES),
        *(part("entry", "B", share * shares.get("B", 0.0), block="B", output=output, input="steer")
          for output, share in entries.items()),
    ]  # fmt: skip
    if replaced is True:
        replaced = part("replacement", top, shares[top], spread)
    parts += [replaced] if replaced else []
    cures = (((top,),) if cures is None else cures) if replaced else ()
    return Attribution(
        (Account("bias", "model", 5, tuple(parts), cures),), (), {}, 256, "grid", (), ()
    )


def changed(found, *parts):
    """With other parts in the places of these."""
    (account,) = found.bias
    places = {each.place: each for each in parts}
    return replace(found, bias=(
        replace(account, parts=tuple(places.get(each.place, each) for each in account.parts)),
    ))  # fmt: skip


def told(attribution):
    found = source(FLAT, attribution, "model")
    assert all(each.sentence for each in found)
    return {(each.code, each.subject): each for each in found}


DERIVATIVES = ("fix", "the model's derivatives")


def test_the_advice_is_the_replacement_and_the_largest_share_is_named_with_its_entry():
    found = told(attribution({"B": 0.8, "states": 0.06, "A": 0.14}))
    fix, cause = found[DERIVATIVES], found["cause", "∂f/∂a"]
    assert (fix.value, fix.low, fix.high, fix.decision) == pytest.approx((0.8, 0.78, 0.82, "pass"))
    assert fix.at == "the model gradient (first action) at h = 5" and fix.n == 256
    assert cause.value == 0.8 and cause.decision == "pass"
    assert found["cause", "∂f/∂a of yaw rate by steer"].value == pytest.approx(0.72)


def test_shares_that_overlap_are_open():
    found = told(attribution({"B": 0.55, "A": 0.45}, spread=0.1))
    assert found["cause", "∂f/∂a"].decision == "undecided"
    # A third share whose interval reaches the largest is its rival, too.
    found = told(changed(attribution({"B": 0.6, "A": 0.2}), part("shapley", "states", 0.1, 0.7)))
    assert found["cause", "∂f/∂a"].decision == "undecided"


def test_where_causes_cancel_the_pair_is_advised_and_what_one_alone_does_is_printed():
    found = attribution(
        {"states": 3.4, "B": -2.5, "A": 0.1}, first={"B": -3.0, "states": -2.0},
        replaced=part("replacement", "states + B", 0.9), cures=(("states", "B"), ("A",)),
    )  # fmt: skip
    assert found.bias[0].cancelling == ("states", "B")
    rows = told(found)
    fix = rows["fix", "the model's state predictions and the model's derivatives"]
    assert fix.value == 0.9 and fix.decision == "pass"
    states, actions = (rows["fix_harms", cause] for cause in ("states", "∂f/∂a"))
    assert (states.value, states.low, states.high) == pytest.approx((2.0, 1.98, 2.02))
    assert actions.value == pytest.approx(3.0)
    assert any(each.code == "causes_cancel" for each in sentences(found, FLAT))


@pytest.mark.parametrize(
    ("replaced", "code", "decision"),
    [
        (part("replacement", "B", 0.1, 0.2), "fix", "undecided"),
        (part("replacement", "B", -0.5, 0.2), "fix_nothing", "fail"),
        (None, "cause", "pass"),
    ],
)
def test_a_replacement_that_is_not_shown_to_lower_the_bias_is_no_advice(replaced, code, decision):
    first = source(FLAT, attribution({"B": 0.8}, replaced=replaced), "model")[0]
    assert (first.code, first.decision) == (code, decision)


def test_a_bias_lost_in_noise_has_no_source():
    found = attribution({"B": 0.1}, total=part("total", "total", 0.1, 0.5))
    (sentence,) = source(FLAT, found, "model")
    assert (sentence.code, sentence.decision) == ("no_bias", "undecided")


def test_without_stored_substitutions_nothing_is_said_of_causes():
    assert source(FLAT, None, "model") == []
    assert source(FLAT, attribution({"B": 0.8}), "mixed") == []


@pytest.mark.parametrize(
    ("low", "high", "known"), [(0.5, 0.9, True), (-3.0, 1.33, False), (-0.1, 0.8, False),
                               (0.1, 1.4, False)],
)  # fmt: skip
def test_a_share_is_named_where_its_own_interval_tells_it(low, high, known):
    """That the squared bias falls is of its size, which is shown; the share is of a noisy whole."""
    noisy = replace(part("replacement", "B", 0.67), fraction_low=low, fraction_high=high)
    for rivals in ((), (("A",),)):
        noised = attribution({"B": 0.8}, replaced=noisy, cures=(("B",), *rivals))
        shown = screen(FLAT, noised, sentences(noised, FLAT))
        assert ("67%" in shown.field("why")) == (DERIVATIVES in told(noised)) == known
        assert percent(low).removesuffix("%") in shown.field("why") or not known
        assert shown.fix_first == "the model's derivatives"
        assert (shown.light == "act") == (not rivals) == (not shown.field("not excluded"))
