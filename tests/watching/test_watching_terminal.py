"""What `gradlab watch` prints: it fits, says what matters in words, and steers no terminal."""

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace

import pytest
from rich.console import Console

from gradlab.cli import main
from gradlab.reporting.kinds import screen_of
from gradlab.storage.journal import discard, journal_of
from gradlab.verdicts.screen import lines as first_lines
from gradlab.watching import showing
from gradlab.watching.showing import Server, screen
from gradlab.watching.state import SILENT, Watcher
from tests.probe import planted_probe as planted
from tests.watching import grown


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return grown.trained(tmp_path_factory.mktemp("terminal") / "run.h5", grown.ATTACK)


def printed(path, width, height=None, **console):
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, **console)
    watcher = Watcher(path)
    console.print(screen(watcher.state(), time.time(), width, height, "Ctrl-C ends it."))
    return out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (120, 40), (250, 70)])
def test_the_screen_fits_and_keeps_head_recommendation_events_and_foot(run, width, height):
    lines = printed(run, width, height).splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "the run has ended before its last iteration" in text
    assert "iteration 400 of 1,000 (40%)" in text and "Ctrl-C ends it." in text
    assert "! iteration 3" in text and "higher on" in text and "<img" in text


def test_names_from_a_run_steer_no_terminal_and_nothing_is_told_by_colour_alone(run):
    text = printed(run, 200)
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "<img src=x" in text  # as it stands
    plain = printed(run, 80, 24)
    coloured = printed(run, 80, 24, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    stripped = "".join(part.split("m", 1)[-1] for part in coloured.split("\x1b["))
    assert stripped == plain


def test_once_prints_the_state_and_json_is_one_document(run, capfd):
    assert main(["watch", str(run), "--once"]) == 0
    out, err = capfd.readouterr()
    assert "final return (undiscounted" in out and "\x1b" not in out and err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert main(["watch", str(run), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["phase"] == "ended" and document["progress"]["done"] == 400
    assert document["numbers"][0]["text"] == "-62"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run.h5.journal"], "ends in .h5"),
        (["run.h5", "--port", "80"], "add --web"),
        (["run.h5", "--web", "--once"], "give one"),
        (["run.h5", "--web", "--port", "70000"], "65535"),
    ],
)
def test_wrong_usage_is_refused_in_a_line(words, said, capfd):
    assert main(["watch", *words]) == 2
    assert said in capfd.readouterr().err


def test_a_run_that_is_not_there_is_named_with_what_ends_the_view(tmp_path):
    def ended(seconds):
        raise KeyboardInterrupt

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        showing.lines(Watcher(tmp_path / "gone.h5"), out, ended)
    assert "gone.h5 yet" in out.getvalue() and "Ctrl-C ends the view" in out.getvalue()


def test_lines_come_when_rows_do_and_end_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("gradlab.watching.state.SHARE", 1e9)  # no rest on a slow machine
    path, now, out = tmp_path / "run.h5", [time.time()], io.StringIO()
    writer = grown.training(path)
    story = iter(range(40))

    def sleep(seconds):
        now[0] += seconds
        k = next(story)
        if k == 0:
            writer.append("evaluations", grown.evaluation_row(0))
        if k == 12:
            writer.append("events", {"number": 4, "message": "seed 0 diverged"})
        if k == 30:
            writer.close()
        elif k < 30:
            writer.append("updates", grown.update_row(k))
            os.utime(journal_of(path), (now[0], now[0]))

    showing.lines(Watcher(path, clock=lambda: now[0]), out, sleep)
    lines = out.getvalue().splitlines()
    assert "has no row yet" in lines[0]
    assert [line for line in lines if "final return (undiscounted" in line]
    assert "  ! iteration 1: seed 0 diverged" in lines
    assert "the run has ended" in lines[-1]
    first = first_lines(replace(screen_of(path), notice=""))
    assert lines[-1 - len(first) : -1] == first
    # Beside it: empty, one every ten seconds of thirty, the event, the end.
    assert len(lines) == 6 + len(first)
    assert "\x1b" not in out.getvalue()


def test_lines_say_when_a_run_is_silent_and_when_its_writer_is_gone(tmp_path):
    path, now, out = tmp_path / "run.h5", [time.time()], io.StringIO()
    grown.killed(path)

    def sleep(seconds):
        now[0] += SILENT

    showing.lines(Watcher(path, clock=lambda: now[0]), out, sleep)
    assert "was not closed" in out.getvalue().splitlines()[-1]


def test_lines_have_an_alarm_once_and_at_the_end_its_count(tmp_path):
    path, now, out = tmp_path / "run.h5", [time.time()], io.StringIO()
    planted.written(path, planted.everything())

    def sleep(seconds):
        now[0] += SILENT

    showing.lines(Watcher(path, clock=lambda: now[0]), out, sleep)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("  ! ")]
    assert lines == [
        "  ! update 500: dead inputs: dead inputs at update 500: fix it",
        "  ! update 1,200: saturated actor: saturated actor at update 1200: fix it",
        "  ! dead inputs: 2 times, the last at 1,000",
    ]


def screens(process, descriptor, until, limit=20.0):
    """What a terminal gets until a text is there."""
    text, end = "", time.monotonic() + limit
    while until not in text and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.1)[0]:
            text += os.read(descriptor, 65536).decode(errors="replace")
    assert until in text, text[-2000:]
    return text


@pytest.mark.slow
def test_a_terminal_is_redrawn_until_ctrl_c_which_is_no_failure(tmp_path):
    path = tmp_path / "run.h5"
    outside, inside = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm", "NO_COLOR": "1"}
    with grown.training(path) as writer:
        process = subprocess.Popen(
            [sys.executable, "-m", "gradlab", "watch", str(path)],
            stdout=inside, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        screens(process, outside, "has no row yet")
        writer.append("updates", grown.update_row(4))
        text = screens(process, outside, "iteration 40 of 1,000")
        assert "\x1b[3" not in text  # NO_COLOR
        process.send_signal(signal.SIGINT)
        text += screens(process, outside, "the run has not been touched")
        assert process.wait(10) == 0
        assert process.stderr is not None and process.stderr.read() == b""
        process.stderr.close()
    os.close(inside)
    os.close(outside)


@pytest.mark.slow
def test_a_page_is_served_until_ctrl_c_which_is_no_failure(run):
    process = subprocess.Popen(
        [sys.executable, "-m", "gradlab", "watch", str(run), "--web"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = process.stdout.readline()
    url = said.split(" at ")[1].split()[0]
    assert url.startswith("http://127.0.0.1:") and "Ctrl-C" in said
    with urllib.request.urlopen(f"{url}state.json", timeout=30) as answer:
        assert "iteration 400 of 1,000" in json.load(answer)["line"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "") and "has not been touched" in out


def test_a_run_that_was_not_closed_says_so_once(tmp_path):
    path = planted.written(tmp_path / "run.h5", planted.everything())
    os.utime(journal_of(path), (1.0, 1.0))
    assert printed(path, 200).count("closed") == 1


# The live page in a browser: the report of the growing file, made again as it grows.


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
    monkeypatch.setattr(showing, "SHARE", 1e9)
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
            assert "ends higher on pendulum" in tab.locator(".headline").inner_text()
            every = tab.locator("details", has_text="Every seed").locator("summary")
            every.focus()
            tab.keyboard.press("Enter")
            learns = tab.locator("details", has_text="Does it learn?").locator("summary").first
            learns.click()
            every.focus()
            writer.append("evaluations", grown.evaluation_row(20))
            served.reports.renew()
            tab.wait_for_selector("td:has-text('−80')")
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
