"""What a certificate says: entries, where, and how it is made again."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.systems import from_function
from gradlab.tasks.task import OTHER_BOUNDS
from gradlab.tools.certify import page as certification_page
from gradlab.tools.certify.comparison import wrong_words
from gradlab.tools.certify.result import Names, WrongEntry, percentage
from gradlab.tools.certify.sampling import region
from tests.certification.faults.fault import Relinearized
from tests.certification.faults.planted import FAULTS

DT = 0.05


def falling(s, a):
    """A detached attitude: ∂x′/∂θ = DT · ∂v′/∂θ is zero with it."""
    x, angle, v = s.unbind(1)
    v = v + DT * (20 * torch.sin(angle.detach()) + a[:, 0])
    return torch.stack([x + DT * v, angle + DT * a[:, 0], v], 1), -(x**2) - 0.1 * v**2


def certified(step, **more):
    return gradlab.certify(from_function(step, 3, 1), samples=128, **more)


@pytest.fixture(scope="module")
def detached():
    return certified(falling)


def test_every_wrong_entry_is_named_with_its_error_and_causes_the_largest_first(detached):
    (finding,) = (each for each in detached.findings if each.block == "A")
    assert [(each.row, each.column) for each in finding.entries] == [("s2′", "s1"), ("s0′", "s1")]
    first, second = finding.entries
    assert first.absolute == pytest.approx(second.absolute / DT, rel=1e-6)
    assert {each.zero for each in finding.entries} == {"J"} and finding.sign_kept is None
    assert "Largest absolute error first: s2′ and s0′ by s1, which are zero" in finding.sentence
    assert detached.document()["findings"][0]["entries"]
    assert "a detach, a copy through numpy, or an integer or constant" in finding.sentence
    scaled = wrong_words("A", "free", [WrongEntry("s0′", "s1", 0.2, 0.1, "")], 0.1, 0.0, (5, 9))
    assert "detach" not in scaled and "It is s0′ by s1, by 20%." in scaled
    table = detached.table()
    block = table[(table["block"] == "A") & (table["source"] == "step")]["median"].max()
    assert 0 < block < 1
    assert "2 entries are off by up to 100%" in finding.sentence
    assert " ".join(detached.sentences).count("A derivative that is exactly zero") == 1
    assert f"the whole block by {percentage(block)} (median)" in finding.sentence
    number = certification_page.screen(detached).numbers[1].text
    most = table["p95"].max()
    assert most <= float(number) < most + 0.01  # rounded up: "below"


@pytest.mark.parametrize(
    "name, words",
    [
        ("transposed block", "The wrong entries are those of the transposed block."),
        ("wrong scale", "Every wrong entry is 1.12 times its difference."),
        ("factor two of a square", "Every wrong entry is 0.5 times its difference."),
        ("symmetric part only", ""),
        ("wrong index", ""),
    ],
)
def test_what_all_the_wrong_entries_are_instead_is_said(name, words):
    (fault,) = (each for each in FAULTS if each.name == name)
    made = gradlab.certify(fault.task(), samples=128)
    said = next(each.sentence for each in made.findings if each.block == fault.blocks[0])
    assert words in said and ("transposed" in said) == (name == "transposed block")
    assert ("times its difference" in said) == ("times" in words)


@pytest.mark.parametrize("end, words", [(1.5, ", sign kept"), (3.1, ", the sign wrong in ")])
def test_a_sign_that_is_kept_in_some_states_is_not_said_to_be_kept(end, words):
    """cos(s) against a constant .2, on states from 0 to `end`."""

    def bent(system, s, a):
        made = system.linearize(s, a)
        return replace(made, A=torch.full_like(made.A, 0.2))

    system = from_function(lambda s, a: (torch.sin(s) + a, -(a[:, 0] ** 2)), 1, 1)
    states = torch.linspace(0.05, end, 200).double()[:, None]
    wrong = Relinearized(system, bent)
    made = gradlab.certify(wrong, states=states, actions=torch.zeros(200, 1).double())
    (finding,) = (each for each in made.findings if each.block == "A")
    assert words in finding.sentence
    flipped = float((torch.cos(states) < 0).double().mean())
    if flipped:
        said = finding.sentence.partition(words)[2].partition("%")[0]
        assert float(said) == pytest.approx(100 * flipped, abs=3)


def test_the_page_says_what_was_compared_where_and_how_it_is_made_again(tmp_path):
    task = gradlab.tasks.double_integrator()
    first, again = (gradlab.certify(task, samples=64, seed=3) for _ in range(2))
    assert first.document() == again.document()
    pages = [
        each.save(tmp_path / f"{k}.html").read_bytes() for k, each in enumerate((first, again))
    ]
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert "<b>Sound</b>" in text and "at least" not in text[: text.index("<figure")]
    assert "seed=3" in text and gradlab.__version__ in text and "rollouts begin at the task" in text
    ranges = {each["coordinate"]: each for each in first.facts["ranges"]}
    assert len(ranges) == 3 and all(each["lowest"] < each["highest"] for each in ranges.values())


def bounded(least, reward=lambda s: -(s**2)):
    """A step that pays for a^1.5 from `least` on: NaN below it."""

    def step(s, a):
        x = 0.9 * s + DT * torch.sin(s)
        return x + DT * a, reward(s[:, 0]) - (a[:, 0] - least) ** 1.5

    return gradlab.certify(from_function(step, 3, 1), samples=256)


@pytest.fixture(scope="module")
def positive():
    return bounded(0.0)


def test_states_that_are_not_finite_are_counted_with_their_bound_and_what_to_do(positive):
    (finding,) = (each for each in positive.findings if each.kind == "not finite")
    lost, n = positive.facts["not finite"], positive.facts["states"]
    assert lost > 50 and finding.severity == "note" and finding.row == "r"
    assert finding.sentence.startswith(f"The step is not finite at {lost} of {lost + n} states")
    assert ": all have a0 < 0, and no other has. These are left out." in finding.sentence
    assert OTHER_BOUNDS in finding.sentence
    ranges = {each["coordinate"]: each for each in positive.facts["ranges"]}
    assert ranges["a0"]["lowest"] >= 0


def test_what_the_finite_states_show_is_the_verdict(positive):
    assert positive.shown and certification_page.screen(positive).word == "Sound"
    lost, n = positive.facts["not finite"], positive.facts["states"]
    assert f"at the {n} of {n + lost} states where it is finite." in positive.headline
    assert {each.kind for each in positive.findings} == {"not finite"}
    assert max(positive.facts["single precision"].values()) < 1e-2
    wrong = bounded(0.0, lambda s: -(s.detach() * s))
    assert not wrong.passed and "Fix ∂r/∂s" in wrong.headline


def test_derivatives_that_are_not_finite_show_nothing_of_precision():
    def step(s, a):
        x = 0.9 * s + DT * a
        return x, torch.where(a[:, 0] > 0, a[:, 0].sqrt(), 0.0)  # of slope NaN below 0

    certificate = gradlab.certify(from_function(step, 3, 1), samples=128)
    assert {each.kind for each in certificate.findings} >= {"not finite"}
    assert "single precision" not in {each.kind for each in certificate.findings}
    (found,) = (each.sentence for each in certificate.findings if each.kind == "not finite")
    assert ": all have a0 < " in found and OTHER_BOUNDS in found


def test_precision_is_lost_where_finite_states_lose_it():
    certificate = bounded(0.0, lambda s: (1e6 + s) ** 2 - 1e12 - 2e6 * s)
    (finding,) = (each for each in certificate.findings if each.kind == "single precision")
    assert finding.block == "r_s" and finding.size > 0.03  # 2 s, of terms of 2e6


def test_too_few_finite_states_are_no_sound_ones():
    certificate = bounded(1.6)
    n, lost = certificate.facts["states"], certificate.facts["not finite"]
    assert 16 < n < 0.25 * (n + lost)
    assert certificate.passed and not certificate.shown
    screen = certification_page.screen(certificate)
    assert screen.word == "Not shown" and screen.light == "choose"
    assert f"is finite at {n} of {n + lost} states, too few to judge them." in certificate.headline


def test_bounds_that_part_what_is_not_finite_are_named_and_no_others():
    names = Names(("x", "y"), ("u",))
    z = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 - 2
    z[0, 2] = 1.0  # on the bound
    beyond = (z[:, 2] < 0) | (z[:, 2] > 1)
    where, remedy = region(names, z, beyond)
    assert where in (
        f": all have u {first}, and no other has" for first in ("< 0 or u > 1", "> 1 or u < 0")
    )
    assert remedy.startswith(OTHER_BOUNDS)
    where, remedy = region(names, z, z[:, 0] > 1.25)
    assert where.startswith(": all have x > 1.2") and OTHER_BOUNDS not in remedy
    where, remedy = region(names, z, z[:, 0] + z[:, 1] > 1)
    assert where.startswith(", first at x ") and "clamp" in remedy
    one = torch.arange(500) == int(z[:, 1].argmax())
    assert region(names, z, one)[0].startswith(", first at")  # of one, chance has bounds


def test_a_relative_error_is_a_percentage_however_large():
    """Twenty times the derivative is off by 1,900% of it, which "a factor of 19" did not say."""
    assert [percentage(x) for x in (0.0123, 0.99, 1.06, 19.0, 2e6)] == [
        "1.2%", "99%", "106%", "1,900%", "over 10,000%",
    ]  # fmt: skip
