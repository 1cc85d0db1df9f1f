"""The sentence about the source of the squared bias."""

from __future__ import annotations

from dataclasses import replace

from gradlab.runs.attribution import CAUSES, Account, Attribution, Entry, Part
from gradlab.verdicts.measurement.sources import source
from tests.verdicts.planted_profiles import FLAT, said


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


def source_text(attribution: Attribution | None) -> str:
    (sentence,) = source(FLAT, attribution, "model")
    return sentence.text


def test_the_largest_share_is_named_with_its_entry_and_what_to_mend():
    text = source_text(attribution({"B": 0.8, "states": 0.06, "A": 0.14}))
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
    text = source_text(replace(found, bias=(replace(found.bias[0], shapley=wide),)))
    assert text.startswith("Undecided whether ∂f/∂a (60%")
    assert "or states (10%" in text


def test_causes_that_cancel_are_said_to():
    text = source_text(
        attribution({"states": 3.4, "B": -2.5, "A": 0.1}, cancelling=("states", "B"))
    )
    assert text.startswith("Causes cancel: shares of the squared bias of the model gradient")
    assert "340% (CI 338% to 342%) for states and -250%" in text
    assert "mending one of them alone may make it worse" in text


def test_a_bias_lost_in_noise_has_no_source():
    total = part("total", 0.1, 0.5)
    (sentence,) = source(FLAT, attribution({"B": 0.1}, total=total, lost=True), "model")
    assert not sentence.decided
    assert "Undecided what makes the squared bias of the model gradient at h = 5" in sentence.text
    assert "not distinguishable from zero (0.1, CI -0.4 to 0.6, N = 256)" in sentence.text


def test_without_stored_substitutions_the_form_is_silent():
    assert source(FLAT, None, "model") == []
    assert "source" not in said(FLAT)
    assert source(FLAT, attribution({"B": 0.8}), "mixed") == []
