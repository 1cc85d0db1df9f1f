"""The live page in a browser: the report of the growing file, made again as it grows."""

import contextlib
import threading

import pytest

from gradlab.storage.journal import discard
from gradlab.watching import server
from gradlab.watching.server import Server
from gradlab.watching.state import Watcher
from tests.probe import planted_probe as planted
from tests.watching import grown

HASTE = "const later = setTimeout; window.setTimeout = (call, time) => later(call, time / 10);"


@contextlib.contextmanager
def shown(browser, path, scheme="light", width=1200):
    """The page with its server; nothing is asked for elsewhere, and nothing complained about."""
    with Server(Watcher(path)) as served:
        threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        tab.add_init_script(HASTE)
        seen = []
        tab.on("request", lambda r: None if r.url.startswith(served.url) else seen.append(r.url))
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.goto(served.url)
        yield tab, served
        tab.close()
        served.shutdown()
    assert [each for each in seen if not each.startswith("data:")] == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A probe's log with rows of every table, whose task and alarms are attacks."""
    told = [planted.alarm(0, 100, grown.ATTACK, grown.ATTACK)]
    path = tmp_path_factory.mktemp("hostile") / "run.h5"
    rows = {**planted.everything(), "alarms": told}
    return planted.written(path, rows, task=grown.ATTACK, names=[grown.ATTACK, *planted.NAMES[1:]])


def test_the_page_is_the_report_with_return_value_gains_and_alarms_in_sight(browser, hostile):
    with shown(browser, hostile) as (tab, _):
        tab.wait_for_selector("#live:has-text('update 3,000')")
        opened = tab.locator("details[open] > summary h2").all_inner_texts()
        assert opened == ["Alarms", "Does the return rise?"]
        drawn = tab.locator("#verdict, details[open]").locator("svg").all_text_contents()
        for title in ("Return of the policy", "Critic against the bound", "last updates brought"):
            assert any(title in text for text in drawn)
        assert tab.locator("img").count() == 0 and "broken" not in tab.title()[:6]
        assert "<img src=x" in tab.locator("h1").inner_text()
        assert "<img src=x" in tab.locator("#alarms dd").inner_text()


@pytest.mark.slow
def test_a_row_that_comes_is_shown_without_a_reload_and_what_was_unfolded_stays(
    browser, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "SHARE", 1e9)
    path = tmp_path / "run.h5"
    with shown(browser, path) as (tab, served):
        tab.wait_for_selector("h1:has-text('run')")
        assert "waiting for it" in tab.locator("#live").inner_text()
        with grown.training(path) as writer:
            for k in (0, 1):
                writer.append("updates", grown.update_row(10 * k))
                writer.append("evaluations", grown.evaluation_row(10 * k))
            served.reports.renew()
            tab.wait_for_selector("h1:has-text('mpg-v2 on pendulum')")
            tab.wait_for_selector("#live:has-text('iteration 100 of 1,000 (10%)')")
            assert "learns pendulum" in tab.locator(".headline").inner_text()
            every = tab.locator("details", has_text="Every seed").locator("summary")
            every.focus()
            tab.keyboard.press("Enter")
            learns = tab.locator("details", has_text="Does it learn?").locator("summary").first
            learns.click()
            every.focus()
            writer.append("evaluations", grown.evaluation_row(20))
            served.reports.renew()
            tab.wait_for_selector("td:has-text('-80')")
            assert tab.locator("details[open] > summary h2").all_inner_texts() == ["Every seed"]
            assert tab.evaluate("document.activeElement.textContent") == "Every seed"
            tab.locator("th button", has_text="final return").click()  # sorts the new table
            assert tab.locator("td").first.inner_text() == "mpg-v2"
            assert tab.locator("th[aria-sort=ascending]").count() == 1
        discard(path)
        served.reports.renew()
        tab.wait_for_selector("#live:has-text('waiting for it')")


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1200)])
def test_nothing_is_too_wide(browser, hostile, scheme, width):
    with shown(browser, hostile, scheme, width) as (tab, _):
        tab.wait_for_selector("#live:has-text('update 3,000')")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
