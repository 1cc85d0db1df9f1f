"""Long work is seen to be alive, and its price stands before it begins."""

import os
import subprocess
import sys
import time

from gradlab.cli.terminal.progress_bars import Lines, bars
from gradlab.measurement.prices import Price, left_after

PLAN = (
    Price("truth", "128 starts × 50 steps", 40.0, at_most=True),
    Price("estimators", "6 sweeps", 20.0),
    Price("checks", seconds=5.0),
)


class Clock:
    """A clock that the test turns."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def shown(*, every=15.0):
    written: list[str] = []
    clock = Clock()
    return Lines(written.append, clock, every), clock, written


def test_a_stage_writes_one_line_when_it_begins_and_one_when_it_ends():
    lines, clock, written = shown()
    lines.plan(PLAN)
    assert len(written) == 1 + len(PLAN)
    written.clear()
    for done in range(1, 51):
        lines("truth", done, 50)
        clock.now += 0.1
    lines("truth", 50, 50)
    assert written == [
        "[0:00] truth: begins (128 starts × 50 steps, at most 40 s)",
        "[0:04] truth: ended after 5 s; about 25 s left",
    ]


def test_the_next_stage_ends_the_one_before():
    lines, clock, written = shown()
    lines("estimators", 0, 4)
    clock.now = 3.0
    lines("checks", 0, 1)
    assert written == [
        "[0:00] estimators: begins (price unknown)",
        "[0:03] estimators: ended after 3 s",
        "[0:03] checks: begins (price unknown)",
    ]


def test_a_long_stage_writes_every_quarter_of_a_minute_whether_it_reports_or_not():
    lines, clock, written = shown()
    lines("truth", 100, 400)
    for clock.now in range(1, 41):
        lines.beat()
    assert written[1:] == [
        "[0:15] truth: 15 s so far, 100 of 400, about 45 s more",
        "[0:30] truth: 30 s so far, 100 of 400, about 2 min more",
    ]
    lines.close()
    for clock.now in range(41, 60):
        lines.beat()
    assert written[3:] == [
        "[0:40] truth: ended after 40 s",
        "[0:55] after truth: at work, 15 s so far",
    ]


def test_what_is_left_is_unknown_where_a_price_is():
    assert left_after((*PLAN, Price("realised")), "checks") != left_after(PLAN, "checks")
    assert left_after((*PLAN, Price("realised")), "realised") == 0.0


def test_a_stage_that_reports_nothing_is_seen_without_a_terminal(capsys):
    with bars(every=0.3) as progress:
        progress("truth", 0, 1)
        time.sleep(0.8)
    out, err = capsys.readouterr()
    assert out == ""
    first, *between, last = [line.split("] ")[1] for line in err.splitlines()]
    assert first == "truth: begins (price unknown)"
    assert between and all("so far" in line for line in between)
    assert last.startswith("truth: ended after")


def test_nothing_fails_once_the_reader_of_the_lines_has_gone():
    script = (
        "import sys\nfrom gradlab.cli.terminal.progress_bars import bars\n"
        "with bars() as progress:\n"
        "    for k in range(200):\n        progress(f'stage {k}', 1, 1)\n"
        "print('end', file=sys.stderr)\n"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", script], stderr=writing)
    os.close(writing)
    os.close(reading)
    assert process.wait(60) == 0
