"""What the README and the pages of reports/ say first is what their tables say."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from analyses.advice import verdict as advice

REPORTS = Path(__file__).parents[2] / "reports"


def signed(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


def advised() -> Iterator[tuple[str, str]]:
    """What the cells of `advice` say, on its page and on the first one."""
    rows = [json.loads(line) for line in (REPORTS / "advice/cells.jsonl").open()]
    told = [row for row in rows if row["recommended"]]
    kept = [row for row in rows if not row["recommended"]]
    n, k = len(told), len(kept)
    first, ended = sum(advice.named(rows)), sum(advice.ends(rows))
    near, nearer = (sum(row["share"][0] >= least for row in told) for least in (0.95, 0.9))
    green, wrong = sum(row["light"] == "act" for row in told), len(advice.wrong_greens(rows))
    helped, count = sum(bool(row["helps"]) for row in kept), {2: "two"}[wrong]
    yield "../README.md", f"in {first} of {n} recommendations"
    yield "../README.md", f"together in {ended}; {near} of {n} were within 5% of the best choice"
    yield "README.md", f"raised the return in {first} of {n} cells"
    yield (
        "advice/README.md",
        f"in {first} of {n} cells the first update raised the return, in {ended}",
    )
    yield "advice/README.md", f"Of {green} green lights {count} were wrong"
    yield "advice/README.md", f"{near} of {n} recommendations were within 5% of the best choice in"
    yield "advice/README.md", f"hindsight, {nearer} within 10%"
    yield "advice/README.md", f"in {k - helped} of {k} cells nothing helped"


def measured() -> Iterator[tuple[str, str]]:
    """The measurement of path tracking."""
    table = pd.read_csv(REPORTS / "path-tracking/numbers.csv")
    table = table.set_index(["estimator", "quantity", "horizon"])
    gain = 100 * table.xs("gain", level="quantity")[["value", "ci_low", "ci_high"]]
    critic, every = gain.loc["data"], gain.loc["model_all"]
    assert (every.ci_high.loc[:5] < 0).all()
    least, best = (signed(x) for x in (every.value.loc[14:].min(), every.value.loc[14:].max()))
    yield "../README.md", f"14–25 model steps (BPTT) gain {least}–{best}% of the best step; up to 5"
    yield (
        "README.md",
        f"14 to 25 steps through the prior with θ in all actions have {least} to {best}%",
    )
    yield "path-tracking/README.md", f"points backwards ({signed(critic.value[0])}%)"


@pytest.mark.parametrize(("page", "text"), [*advised(), *measured()])
def test_a_page_says_first_what_was_measured(page: str, text: str) -> None:
    assert text in (REPORTS / page).read_text()


def test_pages_are_few_and_short() -> None:
    pages = sorted(REPORTS.glob("*/README.md"))
    assert len(pages) <= 16
    words = {page.parent.name: len(page.read_text().split()) for page in pages}
    assert max(words.values()) <= 2500, words
