"""The page stands alone, in both colour schemes, whatever the file says.

Verdict and page of a comparison of Jacobians.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import gradlab
from gradlab import systems
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.reporting import output, profile_page, render, report, shell
from gradlab.storage import records
from gradlab.tools.jacobians.page import verdict
from gradlab.tools.jacobians.result import load
from tests import planted
from tests.first_screens import contrast, drawing, luminance, opened, small
from tests.planted_tools import compared, said

KINDS = ("png", "csv")
ATTACK = "</script></svg><script>document.title='broken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.html"
    path.write_text(
        shown(planted.Profile(), planted.VERDICT, "inverted_pendulum"), encoding="utf-8"
    )
    return path


def shown(profile: Any, verdict: Sequence[Finding], title: str, *drawn: str, **known: Any) -> str:
    """The page's text; of its figures, those named by `drawn` alone, where any is."""
    page = profile_page.shown(profile, planted.first_sentence(verdict, "mse"), title, **known)
    return render(drawing(page, *drawn) if drawn else page)


def test_the_verdict_is_read_first_and_no_request_leaves_the_page(tab: Any, page: Path) -> None:
    seen = opened(tab, page)
    tab.wait_for_load_state("networkidle")
    first, *others = planted.VERDICT
    assert first.text in tab.locator("#verdict").text_content()
    told = tab.locator("#findings").text_content()
    assert first.text not in told and all(each.text in told for each in others)
    assert tab.locator("#verdict").bounding_box()["y"] < 200
    assert tab.locator("figure svg").count() == 8
    assert seen == [page.as_uri()]


def test_the_page_is_small_and_names_no_address(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    assert not re.search(r"https?://|@import|src=|url\((?!#)", text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_in_both_colour_schemes(
    tab: Any, page: Path, scheme: str
) -> None:
    opened(tab, page, scheme)
    style = "(e, name) => getComputedStyle(e)[name]"
    back = tab.locator("figure").first.evaluate(style, "backgroundColor")
    assert (luminance(back) > 0.5) == (scheme == "light")
    for text in tab.locator("figure svg text").all()[:40]:
        assert contrast(text.evaluate(style, "fill"), back) > 4.5
    strokes = tab.evaluate(
        """() => [...document.querySelectorAll("figure svg g[id*=line2d] > path")]
            .filter((e) => e.closest("g[id*=matplotlib], g[id*=xtick], g[id*=ytick]") === null)
            .map((e) => getComputedStyle(e).stroke).filter((s) => s.startsWith("rgb"))"""
    )
    curves = {stroke for stroke in strokes if contrast(stroke, back) > 1.6}
    assert len(curves) >= 5
    assert all(contrast(stroke, back) > 3 for stroke in curves)


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_screen(tab: Any, page: Path, width: int) -> None:
    opened(tab, page, width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_every_text_of_every_figure_can_be_read_on_a_phone(tab: Any, page: Path) -> None:
    opened(tab, page, width=420)
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert tab.locator("figure svg:visible").count() > 5 and not small(tab)


def test_tables_hold_every_number_and_sort_by_value(tab: Any, page: Path) -> None:
    opened(tab, page)
    table = planted.table()
    shown = tab.evaluate(
        '() => [...document.querySelectorAll(".sortable td:nth-child(3)")].map(e => +e.dataset.v)'
    )
    assert sorted(shown) == sorted(table["value"].tolist())
    tab.locator("summary", has_text="Every number").click()
    first = tab.locator("details details:has(.sortable)").first
    first.locator("summary").click()
    first.locator("th button").nth(2).click()
    ordered = first.evaluate(
        'e => [...e.querySelectorAll("td:nth-child(3)")].map(c => +c.dataset.v)'
    )
    assert ordered == sorted(table[table["quantity"] == "mse"]["value"])
    first.locator("th button").nth(2).click()
    again = first.evaluate('e => [...e.querySelectorAll("td:nth-child(3)")].map(c => +c.dataset.v)')
    assert again == ordered[::-1]


def test_text_from_a_hostile_file_is_shown_and_never_run(tab: Any, tmp_path: Path) -> None:
    frame = planted.table(5, own=(ATTACK,))
    frame["method"] = ATTACK
    more = frame[frame["quantity"] == "snr"].assign(quantity=ATTACK)
    attacked = planted.Profile(
        frame=pd.concat([frame, more]),
        config=dict.fromkeys((*planted.Profile().config, ATTACK), ATTACK),
        environment=dict.fromkeys((*planted.Profile().environment, ATTACK), ATTACK),
        truth={**planted.Profile().truth, "method": ATTACK, "reason": ATTACK, ATTACK: {ATTACK: 1}},
        sanity=(
            Finding(ATTACK, "fail", ATTACK, at=ATTACK),
            Finding("actions_saturated", "pass", ATTACK, 0.1, threshold=0.5),
        ),
    )
    path = tmp_path / "run.html"
    path.write_text(
        shown(attacked, [planted.worded(ATTACK, True, ATTACK)], ATTACK), encoding="utf-8"
    )
    seen = opened(tab, path)
    tab.wait_for_load_state("networkidle")
    assert ATTACK in tab.locator("#verdict").inner_text()
    assert tab.locator("img").count() == 0
    assert tab.locator("script").count() == 1
    assert tab.title() != "broken"
    assert seen == [path.as_uri()]


def test_a_profile_without_truth_or_settings_still_makes_a_page() -> None:
    none = dict(sanity=None)
    bare = planted.Profile(planted.table(truth=False), {}, {}, {"admissible": False}, **none)
    text = shown(bare, (), "bare")
    assert "no verdict" in text
    assert "none admissible" in text


def test_what_is_absent_is_one_line_that_says_how_to_get_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(profile_page, "panels", lambda *_: [])
    told = re.sub("</?code>", "`", shown(planted.Profile(), (), "kept"))
    assert "Not attributed: `gradlab measure --attribute` does." in told
    assert "Not rehearsed." in told


def test_what_needs_attention_is_seen_at_once_and_what_passed_one_click_away(
    tab: Any, page: Path
) -> None:
    opened(tab, page)
    findings = tab.locator("#findings")
    assert "1 failed, 1 undecided of 5" in findings.inner_text()
    marks = findings.locator("td:first-child").all_text_contents()
    assert marks == ["✗", "◐", "✓", "✓", "✓"]
    assert findings.get_by_text("Steer sits at its limit").is_visible()
    assert not findings.get_by_text("error of the derivatives").is_visible()
    findings.locator("details summary").click()
    assert findings.get_by_text("error of the derivatives").is_visible()


def test_cells_hold_their_value_and_show_a_minus_and_whole_thousands() -> None:
    assert shell.cell(-7.25) == '<td data-v="-7.25">−7.25</td>'
    assert shell.cell(12500.0) == '<td data-v="12500.0">12,500</td>'
    assert shell.cell(2.19e-7) == '<td data-v="2.19e-07">2.19e-7</td>'
    assert shell.cell("mpg-v2 at -3") == '<td class="words">mpg-v2 at -3</td>'
    assert shell.cell(float("nan")).endswith(">–</td>")
    head = shell.sortable(("run", "n"), [[shell.cell("a"), shell.cell(1)]])
    assert re.findall(r'<th scope="col"( class="words")?>', head) == [' class="words"', ""]


def test_what_is_drawn_has_its_numbers_under_the_pointer() -> None:
    figure = Figure(figsize=(4, 3))
    axes = figure.add_axes((0.25, 0.25, 0.5, 0.5))
    axes.set(xlim=(0, 4), ylim=(0, 10))
    axes.plot([1, 2, 3, 4.5], [5, 2.5, float("nan"), 1], label="<model>")
    axes.plot([1, 2, 3], [5, 6, 7], label="_band")
    found = re.findall(
        r'<circle cx="([^"]+)" cy="([^"]+)"[^>]*><title>([^<]*)</title>',
        shell.inline(figure, "f", "a figure"),
    )
    # A quarter of 288 points, and one or two of four parts of the half; from the top.
    assert found == [
        ("108.0", "108.0", "&lt;model&gt;, 1: 5"), ("144.0", "135.0", "&lt;model&gt;, 2: 2.5"),
    ]  # fmt: skip
    assert shell.cell(True) == '<td class="words">yes</td>' and "∞" in shell.cell(float("inf"))


def test_figure_text_stays_text_and_ids_do_not_clash(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {
        pair for each in ids for pair in ((each, ""), ("", each))
    }
    assert text.count(">smallest MSE, h* = ") == 3
    assert not re.search(r"\d\.\d{3,}", "".join(re.findall(r' d="([^"]*)"', text)))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is read as the planted profile; its figures are drawn for one page only."""
    screen = planted.first_sentence(planted.VERDICT, "mse")
    page = profile_page.shown(planted.Profile(), screen, "inverted_pendulum")
    pages = chain([page], repeat(drawing(page, "mse")))
    kind = output.Kind(lambda *_: next(pages), lambda run: screen)
    monkeypatch.setattr(output, "_read", lambda path: (planted.Profile(), kind))
    path = tmp_path / "run.h5"
    path.touch()
    return path


def test_report_writes_the_page_and_every_figure_as_image_and_table(
    run: Path, monkeypatch: Any
) -> None:
    drawn, draw = list[Figure](), Figure.draw

    def counted(figure: Figure, renderer: Any) -> None:
        drawn.append(figure)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    page = report(run)
    assert set(Counter(drawn).values()) == {2}  # for PNG and page, and none for the layout
    assert page == run.with_name("run.html")
    assert report(run) == page
    folder = run.with_name("run_figures")
    names = {"cosine", "mse", "sign_agreement", "snr", "sample_norm"}
    names |= {"error-1-model", "error-2-mixed", "error-3-true_dynamics"}
    assert {p.name for p in folder.iterdir()} == {f"{n}.{e}" for n in names for e in KINDS}
    assert sorted(p.name for p in run.parent.iterdir()) == ["run.h5", "run.html", "run_figures"]
    for panel in output.page_of(run).panels:
        assert (folder / f"{panel.name}.png").read_bytes()[:4] == b"\x89PNG"
        pd.testing.assert_frame_equal(pd.read_csv(folder / f"{panel.name}.csv"), panel.table)


def test_a_page_that_is_not_ours_is_left_alone(run: Path) -> None:
    run.with_name("run.html").write_text("<html>mine</html>")
    with pytest.raises(InputError, match=r"run\.html exists and is no gradlab report"):
        report(run)
    assert run.with_name("run.html").read_text() == "<html>mine</html>"


def test_report_refuses_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_text("no")
    with pytest.raises(InputError, match=r"run\.h5"):
        report(tmp_path / "run.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]


def test_a_run_that_cannot_be_read_is_refused_with_the_command_that_makes_it_again(
    tmp_path: Path,
) -> None:
    path, command = tmp_path / "run.h5", "gradlab measure pendulum"
    records.write(path, records.Record({"kind": "profile", "command": command}, {}))
    with pytest.raises(InputError, match=f"not a complete.*: make it again with `{command}`$"):
        report(path)


@pytest.fixture(scope="module")
def comparison():
    return compared()


@pytest.mark.parametrize("model", [None, systems.Pendulum(mass=1.2)])
def test_a_simulator_whose_every_jacobian_is_masked_is_said_to_show_nothing(model, tmp_path):
    spin = torch.tensor([[1.5, 8.0], [1.4, 8.0], [1.6, 8.0], [1.55, 8.0]], dtype=torch.float64)
    push = torch.nn.Linear(2, 1).double()
    torch.nn.init.zeros_(push.weight), torch.nn.init.constant_(push.bias, 2.0)
    run = gradlab.compare_jacobians(systems.Pendulum(), model, spin, push, horizon=1)
    none = said(run, "jacobians.none")
    assert (none.decision, none.n) == ("fail", 4)
    assert not [each for each in verdict(run) if each.code == "jacobians.entry"]
    assert report(run.save(tmp_path / "run.h5")).exists()


def test_a_page_is_rebuilt_from_its_file_and_hostile_names_stay_text(tmp_path):
    hostile = compared(names=("<script>alert(1)</script>", "$x^2$"))
    path = hostile.save(tmp_path / "run.h5")
    page = report(path)
    text = page.read_text()
    assert "<script>alert" not in text
    assert "How good are these Jacobians?" in text
    assert (tmp_path / "run_figures/growth.png").exists()
    assert [each.said for each in verdict(load(path))] == [each.said for each in verdict(hostile)]
