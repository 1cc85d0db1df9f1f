"""What a certificate says: entries, signs that nothing decides, where, and how it is made again."""

import pytest
import torch

import gradlab
from gradlab.systems import from_function
from gradlab.tools.certify import page as certification_page
from gradlab.tools.certify.comparison import wrong_words
from gradlab.tools.certify.result import WrongEntry, percentage

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
    scaled = wrong_words("A", "free", [WrongEntry("s0′", "s1", 0.2, 0.1, "")], 0.1, True, (5, 9))
    assert "detach" not in scaled and "It is s0′ by s1, by 20%." in scaled
    table = detached.table()
    block = table[(table["block"] == "A") & (table["source"] == "step")]["median"].max()
    assert 0 < block < 1
    assert "2 entries are off by up to 100%" in finding.sentence
    assert " ".join(detached.sentences).count("A derivative that is exactly zero") == 1
    assert f"the whole block by {percentage(block)} (median)" in finding.sentence
    number = certification_page.screen(detached).numbers[1].text
    assert float(number) == pytest.approx(table["p95"].max(), rel=5e-3)


def test_a_constant_reward_leaves_no_sign_to_decide():
    def step(s, a):
        return s + DT * torch.sin(s) + DT * a, 0 * s[:, 0] + 1

    certificate = certified(step)
    assert certificate.passed
    (finding,) = (each for each in certificate.findings if each.kind == "sign")
    assert finding.severity == "note"
    assert finding.sentence.endswith("not decidable (the reward is constant).")
    document = certificate.document()
    assert document["facts"]["sign horizon"] is None
    assert document["facts"]["sign"] == "not decidable (the reward is constant)"
    page = certification_page.page(certificate)
    assert page.facts["chained"] == "sign: not decidable (the reward is constant)"


def test_a_failed_certificate_shows_no_horizon_of_right_signs(detached):
    page = certification_page.page(detached)
    assert not detached.passed and page.facts["chained"] is None
    assert page.screen.word == "Not sound"


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
    assert "sign right in 95% of the directions up to" in text
    assert "seed=3" in text and gradlab.__version__ in text and "rollouts begin at the task" in text
    ranges = {each["coordinate"]: each for each in first.facts["ranges"]}
    assert len(ranges) == 3 and all(each["lowest"] < each["highest"] for each in ranges.values())
