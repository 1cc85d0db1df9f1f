"""The sentence about the source of the squared bias."""

from dataclasses import replace

import pytest

from gradlab.runs.attribution import CAUSES, Account, Attribution, BlockEntry, Part, Replacement
from gradlab.verdicts.attribution import screen, sentences, source
from gradlab.wording import percent
from tests.verdicts.planted_profiles import FLAT, said


def part(name, value, spread=0.02, total=1.0):
    low, high = value - spread, value + spread
    shares = (each / total for each in (value, low, high))
    return Part(name, value, spread / 2, low, high, *shares)


def attribution(shares, spread=0.02, **changed):
    """One account of the model at h = 5 with entries of ∂f/∂a."""
    found = tuple(part(name, shares.get(name, 0.0), spread) for name in CAUSES)
    entries = (
        BlockEntry("B", "B", "yaw rate", "steer", part("entry", 0.9 * shares.get("B", 0.0))),
        BlockEntry("B", "B", "speed", "steer", part("entry", 0.1 * shares.get("B", 0.0))),
    )
    top = max(shares, key=lambda name: shares[name])
    cure = Replacement((top,), part(top, shares[top], spread), ())
    account = Account(
        "model", 5, part("total", 1.0), False, found, found, found, entries, (), (), (), (), cure
    )
    return Attribution((replace(account, **changed),), (), {}, 256, "grid", (), ())


def source_text(attribution):
    (sentence,) = source(FLAT, attribution, "model")
    return sentence.text


def test_the_advice_is_the_replacement_and_the_largest_share_is_named_with_its_entry():
    text = source_text(attribution({"B": 0.8, "states": 0.06, "A": 0.14}))
    assert text.startswith("Fix the model's derivatives first: with the true ∂f/∂a the squared b")
    assert (
        "of the model gradient (first action) at h = 5 falls by 80% (CI 78–82%). 80% (CI 78–82%"
        in text
    )
    assert "of it comes from ∂f/∂a, mostly yaw rate by steer (72%" in text
    assert text.endswith("errors of states make 6% (CI 4–8%) (N = 256).")


def test_shares_that_overlap_are_open():
    text = source_text(attribution({"B": 0.55, "A": 0.45}, spread=0.1))
    assert "Whether ∂f/∂a (55% (CI 45–65%)) or ∂f/∂s (45%" in text
    assert text.endswith("makes more of it is open (N = 256).")


def test_a_third_share_whose_interval_reaches_the_largest_is_its_rival():
    found = attribution({"B": 0.6, "A": 0.2})
    wide = tuple(
        part("states", 0.1, 0.7) if e.name == "states" else e for e in found.bias[0].shapley
    )
    text = source_text(replace(found, bias=(replace(found.bias[0], shapley=wide),)))
    assert "Whether ∂f/∂a (60%" in text
    assert "or states (an unknown share (CI -60% to 80%))" in text


def test_where_causes_cancel_the_pair_is_advised_and_what_one_alone_does_is_printed():
    first = tuple(part(name, {"B": -3.0, "states": -2.0}.get(name, 0.0)) for name in CAUSES)
    both = Replacement(("states", "B"), part("states + B", 0.9), (("A",),))
    found = attribution(
        {"states": 3.4, "B": -2.5, "A": 0.1},
        cancelling=("states", "B"), first=first, replacement=both,
    )  # fmt: skip
    text = source_text(found)
    assert text.startswith(
        "Fix the model's state predictions and the model's derivatives first: with the "
    )
    assert "with the true states and ∂f/∂a the squared bias" in text and "falls by 90%" in text
    assert "perhaps by more with ∂f/∂s" in text
    assert "states alone raises it by 200% (CI 198–202%)" in text
    assert "∂f/∂a alone raises it by 300%" in text
    assert "Causes cancel: shares of it are 340% (CI 338–342%) for states and -250%" in text


def test_a_replacement_that_is_not_shown_to_lower_the_bias_is_no_advice():
    doubted = Replacement(("B",), part("B", 0.1, 0.2), ())
    (sentence,) = source(FLAT, attribution({"B": 0.8}, replacement=doubted), "model")
    assert not sentence.decided and sentence.text.startswith("Undecided what to fix first")
    assert "Mend" not in sentence.text
    worse = Replacement(("B",), part("B", -0.5, 0.2), ())
    (sentence,) = source(FLAT, attribution({"B": 0.8}, replacement=worse), "model")
    assert sentence.decided and sentence.text.startswith(
        "Fixing any one or two causes does not lower the squared"
    )
    (sentence,) = source(FLAT, attribution({"B": 0.8}, replacement=None), "model")
    assert not sentence.decided and "Too few starts" in sentence.text


def test_a_bias_lost_in_noise_has_no_source():
    total = part("total", 0.1, 0.5)
    (sentence,) = source(FLAT, attribution({"B": 0.1}, total=total, lost=True), "model")
    assert not sentence.decided
    assert "The squared bias of the model gradient (first action) at h = 5" in sentence.text
    assert "not distinguishable from zero, 0.1 (CI -0.4 to 0.6, N = 256)" in sentence.text


def test_without_stored_substitutions_the_form_is_silent():
    assert source(FLAT, None, "model") == []
    assert "source" not in said(FLAT)
    assert source(FLAT, attribution({"B": 0.8}), "mixed") == []


@pytest.mark.parametrize(
    ("low", "high", "known"), [(0.5, 0.9, True), (-3.0, 1.33, False), (-0.1, 0.8, False),
                               (0.1, 1.4, False)],
)  # fmt: skip
def test_a_share_is_named_where_its_own_interval_tells_it(low, high, known):
    """That the squared bias falls is of its size, which is shown; the share is of a noisy whole."""
    found = attribution({"B": 0.8})
    noisy = replace(part("B", 0.67), fraction_low=low, fraction_high=high)
    for rivals in ((), (("A",),)):
        account = replace(found.bias[0], replacement=Replacement(("B",), noisy, rivals))
        told = replace(found, bias=(account,))
        first, text = screen(FLAT, told, sentences(told, FLAT)), source_text(told)
        assert ("67%" in first.headline) == ("falls by 67%" in text) == known
        assert ("by how much is open" in first.sure) == ("by how much is open" in text) != known
        assert percent(low).removesuffix("%") in first.sure or not known


def test_a_share_whose_interval_is_wider_than_the_whole_is_unknown():
    found = attribution({"B": 0.8, "A": 0.2}).bias[0]
    wide = tuple(
        replace(each, fraction_low=-3.0, fraction_high=1.33) if each.name == "B" else each
        for each in found.shapley
    )
    told = replace(attribution({"B": 0.8}), bias=(replace(found, shapley=wide),))
    numbers = {each.label: each.text for each in screen(FLAT, told, ()).numbers}
    assert numbers["of it ∂f/∂a, -300% to 133%"] == "unknown (256 starts)"
    assert numbers["of it ∂f/∂s, 18–22%"] == "20%"
