"""Thresholds that the catalogue of alarms and the guide name are the constants of the code."""

from __future__ import annotations

from pathlib import Path

from gradlab.probe import critics
from gradlab.probe.alarms import catalogue, evidence, task
from gradlab.probe.parts import (
    formula,
    implied,
    loss_weights,
    matched,
    moves,
    objectives,
    parts,
    recorder,
    rows,
)
from gradlab.runs.probe.returns import LEAST, TRAINED, WINDOW

WORDS = {3: "three", 4: "four", 5: "five", 8: "eight", 10: "ten", 16: "sixteen", 60: "sixty"}


def test_thresholds_on_the_pages_are_those_of_the_code():
    said = {
        "dead outputs": [f"≥ {catalogue._MANY} updates"],
        "dead path": [f"≥ {catalogue._FEWEST_BURSTS} updates"],
        "actor does not move": [f"≥ {catalogue._FEWEST} steps"],
        "learning rate too large": [
            f"more than {catalogue._LONG:.0%} of", f"a rate of {catalogue._HIGH} or more",
        ],
        "dead inputs": [f"in {WORDS[catalogue._PERSISTENT]} bursts"],
        "exploding gradient": [
            f"{WORDS[catalogue.STRETCHES]} stretches of {catalogue.STRETCH} updates in a row",
            f"{WORDS[int(catalogue.FOURFOLD)]} times", f"{WORDS[catalogue.LAG]} stretches before",
        ],
        "exploding critic": [f"its first {critics._YOUNG * catalogue.STRETCH} updates"],
        "saturated actor": [
            f"under {catalogue._BORN:.0%} through", f"last {catalogue._RECENT} rows",
            f"under {catalogue._COST:.0%} gets through",
        ],
        "gradient no better than noise": [f"less than {catalogue.NOISE:.0%} in common"],
        "falling return": [
            f"in {WORDS[catalogue.IN_A_ROW]} windows", f"{WINDOW} whole episodes",
            f"or {TRAINED} of training", f"{LEAST} updates or more", f"at {catalogue._LEVEL:.1%}",
        ],
        "another policy is trained": [f"{moves._RESTED} steps"],
        "environment is not reset": [f"{recorder._BEYOND} steps in a row"],
        "stored rows differ": [
            f"half of the newest {rows.NEWEST * rows.ENOUGH} rows, {rows.ENOUGH} at least "
            f"({rows.NEWEST * rows.ENDS} and {rows.ENDS} of those that end)",
            f"in {rows.ENDS} looks", {0.1: "a tenth"}[rows._MIXED],
            f"more than {rows._ALL:.0%} of the rows", f"{WORDS[rows._REPEATED]} looks in a row",
            f"among {rows._BESIDE} recorded rows",
            f"under {matched._PAID}, and under {matched._AGAIN} with",
            f"{WORDS[int(matched._WIDTH)]} dev",
        ],
        "targets are crossed": [
            f"above {moves._ALONG}", f"under {moves._ASIDE}", f"in {moves._LOOKS} looks",
        ],
        "optimiser's step is another formula's": [f"≥ {formula._FEWEST} looks at one tensor"],
        "network moves without a step": [f"≥ {moves._FEWEST} looks"],
        "gradients are not cleared": [f"≥ {moves._FEWEST} looks"],
        "targets follow too fast": [f"{moves._LOOKS} looks in a row"],
        "critic does not move": [f"{moves._LOOKS} looks and {moves._UNDECLARED} updates"],
        "twin critics are one": [f"{moves._LOOKS} looks in a row"],
        "targets do not move": [f"{moves._LOOKS} looks and {moves._UNDECLARED} updates"],
        "actor's steps move another network": [f"≥ {moves._FEWEST} looks"],
        "actor does not follow its critic": [f"≥ {objectives._LOOKED} looks"],
        "actor's steps lower their objective": [
            f"({objectives.WRONG:.0%} rise)", f"({objectives.SOUND:.0%})",
            f"under {objectives.LEAST:.0%} of {objectives.LOOKS} rise",
            f"e{'⁰¹²³⁴'[int(objectives._FITTED)]} each, one look in {WORDS[objectives.REFIT]}",
        ],
        "wrong weights of actions": [
            f"correlation under −{-loss_weights.WRONG}", f"value above {loss_weights.VALUED}",
            f"{loss_weights.BESIDE:g} times as much", f"in {loss_weights.LOOKS} minibatches",
            f"in {loss_weights.LOOKS} of them",
        ],
        "wrong density": [f"≥ {objectives.FITS} looks"],
        "wrong advantages": [
            f"{implied._MOST:.0%} of the newest ends, {implied.ENDS} at least",
            f"{implied._MOST:.0%} of the newest {implied._BATCHES} minibatches",
        ],
        "critic learns another reward": [
            f"under {implied._NOTHING} of it in {implied.TIMES} looks {implied.APART} updates "
            f"apart from update {implied.FIRST} on", f"{implied._NOTHING} to {implied.LOW},",
            f"at update {implied._SLOW:,} or under −{implied.LOW}",
        ],
        "wrong direction": [f"from {evidence.FEWEST} starts on"],
        "precision-limited": [f"more than {task._PRECISE:.0%} off"],
    }  # fmt: skip
    root = Path(__file__).parents[2]
    lines = (root / "examples" / "alarms.md").read_text().splitlines()
    for kind, each in said.items():
        (row,) = [line for line in lines if line.startswith(f"| {kind} |")]
        assert [part for part in each if part not in row] == [], kind
    page = " ".join((root / "docs" / "watch.md").read_text().split())
    for part in (
        f"that rest ({moves._UNDECLARED} updates,",
        f"up to {WORDS[matched._SUM]} rewards", f"at {recorder._BEYOND} steps in a row",
        f"from update {implied.FIRST + (implied.TIMES - 1) * implied.APART} on",
        f"from update {implied._SLOW:,} on",
        f"windows have under {LEAST} updates",
        f"A window is {WORDS[WINDOW]} episodes", f"in windows of {WORDS[TRAINED]}",
        f"At every {WORDS[parts._EVERY]}th update", f"first {WORDS[parts.FIRST]} looks",
    ):  # fmt: skip
        assert part in page
