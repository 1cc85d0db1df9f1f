"""The page of a test of remedies: its verdict, tables and hostile names."""

import re

import pytest

from gradlab.reporting import render
from gradlab.reporting.numbers import number
from gradlab.tools.remedies import page as remedies_page
from tests.first_screens import check_first_screen, opened
from tests.planted_remedies import ARMS, LEVELS, RUN, TABLE, planted


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("remedies") / "run.html"
    path.write_text(render(remedies_page.page(RUN)), encoding="utf-8")
    return path


def test_every_number_of_both_tables_is_on_the_page_and_sorts(tab, page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r'data-v="([^"]+)"', text)
    for value in (*TABLE["ratio"].dropna(), *TABLE["ci_high"].dropna(), *LEVELS["value"]):
        assert repr(float(value)) in shown
    opened(tab, page)
    first = tab.locator("details details:has(.sortable)").first
    tab.locator("summary", has_text="Every number").click()
    first.locator("summary").click()
    names = [each.inner_text() for each in first.locator("th").all()]
    place = names.index("ratio") + 1
    first.locator("th button").nth(place - 1).click()
    cells = first.locator(f"td:nth-child({place})").all()
    found = [float(each.get_attribute("data-v")) for each in cells]
    assert found == sorted(found) and len(found) == 2 * len(ARMS)
    assert cells[0].inner_text() == number(found[0])


def test_a_hostile_task_is_text(tab, tmp_path):
    attack = "</title><script>document.title='broken'</script><img src=x onerror=alert(1)>"
    notes = {
        "trials": [{"trial": 0, "truth": {"status": attack, "reason": attack}, attack: attack}]
    }
    hostile = planted(trials=1, task=attack, notes=notes, environment={attack: attack})
    path = tmp_path / "run.html"
    path.write_text(render(remedies_page.page(hostile)), encoding="utf-8")
    seen = opened(tab, path)
    tab.wait_for_load_state("networkidle")
    assert attack in tab.locator("h1").inner_text()
    assert tab.locator("img").count() == 0 and tab.title() != "broken"
    assert tab.locator("script").count() == 1 and len(seen) == 1


def test_the_first_screen_names_action_price_and_more_samples(tab, tmp_path):
    found = remedies_page.page(RUN)
    check_first_screen(tab, found, tmp_path)
    assert found.screen.headline.startswith("Take spectral normalisation")
    assert [fact.text for fact in found.screen.numbers[:2]] == ["1.5×", "1×"]
    assert "4× the batch" in found.screen.numbers[2].label
