"""The live page in a browser: the run's own numbers, new ones as they come, nothing hostile run."""

import contextlib
import re
import threading

import numpy as np
import pytest

from gradlab.storage.journal import discard
from gradlab.watching import server, state
from gradlab.watching.server import Server
from gradlab.watching.state import Watcher
from tests.first_screens import contrast
from tests.watching import grown

HASTE = "const later = setTimeout; window.setTimeout = (call, time) => later(call, time / 10);"


@contextlib.contextmanager
def shown(browser, path, scheme="light", width=1200):
    """The page, and everything it asked for from elsewhere or complained about."""
    with Server(Watcher(path)) as served:
        threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        tab.add_init_script(HASTE)
        seen = []
        tab.on("request", lambda r: None if r.url.startswith(served.url) else seen.append(r.url))
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.goto(served.url)
        tab.wait_for_selector("#phase:not(:text('connecting'))")
        yield tab, [each for each in seen if not each.startswith("data:")]
        tab.close()
        served.shutdown()
    assert [each for each in seen if not each.startswith("data:")] == []


def latest(tab, name):
    """A card's value and what stands below it."""
    card = tab.locator("#latest div").filter(has_text=re.compile(f"^{re.escape(name)}"))
    return card.locator(".value").inner_text(), card.locator(".ends").inner_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with grown.training(tmp_path_factory.mktemp("page") / "run.h5") as writer:
        for k in range(41):
            writer.append("updates", grown.update_row(k))
            if k % 10 == 0:
                writer.append("evaluations", grown.evaluation_row(k))
        writer.append("events", {"number": 120, "message": "seed 0: its values diverge"})
    return writer.path


def test_the_numbers_are_the_runs(browser, trained):
    with shown(browser, trained) as (tab, _):
        assert tab.locator("h1").inner_text() == "mpg-v2 on pendulum"
        assert "The run has ended before its last" in tab.locator("#phase").inner_text()
        assert tab.locator("#count").inner_text() == "iteration 400 of 1,000 (40%)"
        assert float(tab.locator("#bar").get_attribute("value")) == 0.4
        assert latest(tab, "policy gradient norm") == ("42", "41 … 43")
        assert latest(tab, "return") == ("−62", "−64 … −60")
        assert "iteration 30" in tab.locator("#events li").inner_text()
        assert "seed 0: its values diverge" in tab.locator("#events li").inner_text()
        assert tab.title() == "40% · mpg-v2 on pendulum · gradlab"


def test_curves_are_drawn_where_their_values_are(browser, trained):
    with shown(browser, trained) as (tab, _):
        figure = tab.locator("#charts figure").filter(has_text="policy gradient norm")
        path = figure.locator("path.line").get_attribute("d")
        points = np.array([list(map(float, p.split(","))) for p in path[1:].split("L")])
        assert len(points) == 41
        np.testing.assert_allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.11)
        heights = -points[:, 1]  # of log(k + 2)
        logs = np.log(np.arange(41) + 2.0)
        scaled = (logs - logs[0]) / (logs[-1] - logs[0]) * (heights[-1] - heights[0]) + heights[0]
        np.testing.assert_allclose(heights, scaled, atol=0.11)
        assert figure.locator("path.band").count() == 1
        assert "median of 2 seeds; band: from the smallest" in figure.inner_text()
        assert "iteration" in figure.locator("svg").first.text_content()


def test_what_never_changed_is_a_sentence_and_no_chart(browser, trained):
    with shown(browser, trained) as (tab, _):
        assert tab.locator("#charts figure").filter(has_text="weights of the").count() == 0
        told = tab.locator("#constant").inner_text()
        assert "weights of the mixture h = 0 0.25, h = 25 0.75" in told


def test_values_can_be_read_by_keyboard_alone(browser, trained):
    with shown(browser, trained) as (tab, _):
        figure = tab.locator("#charts figure").filter(has_text="policy gradient norm")
        svg, said = figure.locator("svg").first, figure.locator("output")
        svg.focus()
        tab.keyboard.press("End")
        assert said.inner_text() == "iteration 400: 42 (41 … 43)"
        tab.keyboard.press("ArrowLeft")
        assert said.inner_text() == "iteration 390: 41 (40 … 42)"
        tab.keyboard.press("Home")
        assert said.inner_text() == "iteration 0: 2 (1 … 3)"
        tab.keyboard.press("Escape")
        assert said.inner_text() == ""
        assert svg.get_attribute("aria-label") == "policy gradient norm: 42"


def test_a_row_that_is_appended_is_shown_without_a_reload(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "SILENT", 1.0)
    monkeypatch.setattr(server, "FRESH", 0.05)
    path = tmp_path / "run.h5"
    with shown(browser, path) as (tab, _):
        assert "yet: waiting for it" in tab.locator("#phase").inner_text()
        writer = grown.training(path)
        writer.append("updates", grown.update_row(1))
        tab.wait_for_selector("#count:has-text('iteration 10 of')")
        assert tab.locator("#phase").inner_text() == "Running"
        assert latest(tab, "policy gradient norm")[0] == "3"
        writer.append("updates", grown.update_row(2))
        tab.wait_for_selector("#count:has-text('iteration 20 of')")
        assert latest(tab, "policy gradient norm")[0] == "4"
        assert tab.locator("#charts figure").count() > 0
        tab.wait_for_selector("#phase:has-text('No row for long')", timeout=8000)
        age = tab.locator("#age").inner_text()
        assert int(re.search(r"last row (\d+) s ago", age)[1]) >= 1
        tab.wait_for_function("age => document.querySelector('#age').textContent !== age", arg=age)
        writer.close()
        tab.wait_for_selector("#phase:has-text('The run has ended')")
        discard(path)
        tab.wait_for_selector("#phase:has-text('waiting for it')")
        with grown.training(path, "another task") as writer:
            writer.append("updates", grown.update_row(0))
            tab.wait_for_selector("h1:has-text('another task')")


def test_the_page_says_when_the_view_has_ended(browser, trained):
    with Server(Watcher(trained)) as served:
        threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        tab = browser.new_page()
        tab.goto(served.url)
        tab.wait_for_selector("#charts figure")
        served.shutdown()
    tab.wait_for_selector("#phase:has-text('No answer from gradlab watch')")
    assert latest(tab, "policy gradient norm")[0] == "42"
    tab.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    names = (grown.ATTACK, "__proto__")
    with grown.probed(tmp_path_factory.mktemp("hostile") / "run.h5", names, grown.ATTACK) as writer:
        for k in range(1, 5):
            writer.append("vitals", grown.vitals_row(k))
        writer.append("measured", grown.measured_row(4))
        writer.append("alarms", grown.alarm_row(0, 100, grown.ATTACK, grown.ATTACK))
        yield writer.path


def test_names_from_a_run_are_text(browser, hostile):
    with shown(browser, hostile) as (tab, _):
        tab.wait_for_timeout(200)
        assert tab.locator("img").count() == 0 and "broken" not in tab.title()[:6]
        assert "<img src=x" in tab.locator("h1").inner_text()
        assert "<img src=x" in tab.locator("#events li").inner_text()
        assert "<img src=x" in tab.locator("#layers tr").first.inner_text()
        assert "__proto__" in tab.locator("#layers tr").last.inner_text()


def test_a_probe_has_profiles_and_tensors(browser, hostile):
    with shown(browser, hostile) as (tab, _):
        profile = tab.locator("#horizons figure")
        assert profile.count() == 1
        assert profile.locator("path.line:not(.swatch path)").count() >= 4
        for name in ("data", "model", "mixed", "true dynamics", "measured at 400, 64 starts"):
            assert name in profile.inner_text()
        profile.locator("svg").first.focus()
        tab.keyboard.press("End")
        assert "horizon 4: data 5 (2.5 … 10); model 10 (5 … 20)" in profile.inner_text()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1200)])
def test_text_and_curves_stand_out_and_nothing_is_too_wide(browser, hostile, scheme, width):
    with shown(browser, hostile, scheme, width) as (tab, _):
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        style = "(e, name) => getComputedStyle(e)[name]"
        back = tab.locator("figure").first.evaluate(style, "backgroundColor")
        for text in tab.locator("figure svg text").all()[:20]:
            assert contrast(text.evaluate(style, "fill"), back) > 4.5
        for line in tab.locator("figure path.line").all()[:8]:
            assert contrast(line.evaluate(style, "stroke"), back) > 3


def test_curves_of_a_chart_differ_without_colour(browser, hostile):
    with shown(browser, hostile) as (tab, _):
        lines = tab.locator("#horizons figure > svg path.line").all()
        dashes = [line.get_attribute("stroke-dasharray") for line in lines]
        assert len(dashes) == 4 == len(set(dashes))
