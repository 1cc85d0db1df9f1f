"""Claims of the papers and what became of them: one table, `reports/claims.csv`.

    python -m analyses.claims            # prints the table; writes reports/claims/README.md
    python -m analyses.claims --check    # only says what is wrong with the table

Nothing is judged anew from run files. A row whose number, interval and threshold contradict its
verdict is refused:

    holds, direction shown    the whole interval is on the asked side
    refuted                   the whole interval is on the other side
    undecided                 the interval holds the threshold

Without an interval (exact counts, closed forms) the number stands for both of its ends; of an
undecided claim a part may be open beside the number that stands here.
"""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import tyro

TABLE = Path("reports/claims.csv")
VERDICTS = ("holds", "direction shown, size not", "refuted", "undecided", "not tried")
HEAD = """# Claims of the papers

{counts}. A verdict is about the paper's sentence as printed:

- *holds*: every part of the sentence is shown, and every size that we ask for.
- *direction shown, size not*: the sentence is shown, a size of ours is not.
- *refuted*: in at least one world a bound is violated, or the opposite direction is shown.
- *undecided*: an interval contains the threshold.
- *not tried*: not run here, or its premise did not occur.

The number is the one that decided, with its 95% interval and what was asked of it; a bound is
refuted by a violation, a direction by the opposite direction, each by its whole interval. Criteria
were written before the runs. Papers compare at equal data; where equal time, our condition, says
something else, it stands below the table. `reports/claims.csv` has more of every claim: other parts
of its sentence, what stays open and what would decide it, and what was changed after looking. Its
column *commit* is where the study's code and run files are, its column *file* the verdict with all
its numbers (`git show 7f6a4f4a:reports/bounds/verdicts.json`).
"""


@dataclass(frozen=True)
class Claim:
    """A row of the table; numbers are text, "" where there is none.

    Attributes:
        quantity: what decided; number, low, high: it and its 95% interval; asked: "≤ 1".
        parts: how many parts of the sentence were met, missed or left open, and sizes of ours.
        equal_time: what equal fitting time says where it differs.
        deviation: in what the world, the scale or the quantity differs from the paper's.
        commit: where code and run files are; file: where the verdict is, at 7f6a4f4a; page: of
            reports/ that it belongs to.
    """

    claim: str
    paper: str
    sentence: str
    verdict: str
    quantity: str
    number: str
    low: str
    high: str
    asked: str
    parts: str
    equal_time: str
    n: str
    scale: str
    open: str
    beside: str
    deviation: str
    changed: str
    commit: str
    file: str
    page: str


def read(table: Path = TABLE) -> list[Claim]:
    """The claims in the order of the table."""
    with table.open() as file:
        rows = csv.DictReader(file)
        names = [field.name for field in fields(Claim)]
        assert rows.fieldnames == names, f"{table} has columns {rows.fieldnames}, expected {names}"
        return [Claim(**row) for row in rows]


def faults(claims: Sequence[Claim], reports: Path) -> Iterator[str]:
    """What is wrong with the table, a line each."""
    for name, count in Counter(claim.claim for claim in claims).items():
        if count > 1:
            yield f"{name} stands {count} times"
    for claim in claims:
        if claim.verdict not in VERDICTS:
            yield f"{claim.claim}: verdict {claim.verdict!r}, expected one of {', '.join(VERDICTS)}"
        if not (reports / claim.page / "README.md").exists():
            yield f"{claim.claim}: no page {claim.page}/README.md"
        if claim.number and (fault := contradiction(claim)):
            yield f"{claim.claim}: {fault}"
        if not known(claim.commit):
            yield f"{claim.claim}: commit {claim.commit} is in no history"


def contradiction(claim: Claim) -> str:
    """Why number, interval and threshold do not give the verdict; "" where they do."""
    number = float(claim.number)
    low, high = (float(each) if each else number for each in (claim.low, claim.high))
    side, threshold = claim.asked.split()
    if not low <= number <= high:
        return f"{number} lies outside of [{low}, {high}]"
    bound = float(threshold)
    below, above = high <= bound, low >= bound
    met, missed = (below, low > bound) if side == "≤" else (above, high < bound)
    if claim.verdict in VERDICTS[:2] and not met:
        return f"{claim.verdict}, but [{low}, {high}] is not {claim.asked}"
    if claim.verdict == "refuted" and not missed:
        return f"refuted, but [{low}, {high}] does not violate {claim.asked}"
    if claim.verdict == "undecided" and claim.low and (met or missed):
        return f"undecided, but [{low}, {high}] decides {claim.asked}"
    return ""


def known(commit: str) -> bool:
    """Whether the history has it; true where there is no history (an unpacked archive)."""
    if not Path(".git").exists():
        return True
    asked = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(asked, capture_output=True).returncode == 0


def page(claims: Sequence[Claim]) -> str:
    """Markdown of all claims, with how each differs from its paper's below."""
    counts = Counter(claim.verdict for claim in claims)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    titles = ("claim", "paper", "verdict", "number [95%]", "scale")
    lines = [titles, ("---",) * len(titles), *map(cells, claims)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = "".join(f"- **{each.claim}**: {text}.\n" for each in claims if (text := note(each)))
    head = HEAD.format(counts=f"**{len(claims)} claims: {said}**")
    return f"{head}\n{table}\n## How each differs from its paper's\n\n{notes}"


def cells(claim: Claim) -> tuple[str, ...]:
    """Of one line."""
    name = f"[{claim.claim}](../{claim.page}/README.md): {claim.sentence}"
    decided = claim.quantity
    if claim.number:
        decided += f": {shown(claim)}, asked {signed(claim.asked)}"
    found = (name, claim.paper, f"**{claim.verdict}**", decided, claim.scale)
    return tuple(
        cell.replace("|", "\\|").replace("*,", "\\*,").replace("(h*", "(h\\*") for cell in found
    )


def shown(claim: Claim) -> str:
    """A number and its interval."""
    between = f" [{signed(claim.low)}, {signed(claim.high)}]" if claim.low else ""
    return f"{signed(claim.number)}{between}"


def signed(text: str) -> str:
    """With a minus, not a hyphen."""
    return text.replace("-", "−")


def note(claim: Claim) -> str:
    """Deviation from the paper and what equal time says."""
    time = f"at equal time {claim.equal_time}" if claim.equal_time else ""
    return "; ".join(filter(None, (claim.deviation, time)))


def main(table: Path = TABLE, check: bool = False, output: Path = Path("reports")) -> None:
    """
    Args:
        check: write no page.
        output: folder in which claims/README.md is written.
    """
    claims = read(table)
    if found := list(faults(claims, table.parent)):
        raise SystemExit("\n".join(found))
    for claim in claims:
        number = shown(claim) if claim.number else "–"
        print(f"{claim.claim:13} {claim.verdict:26} {number:28} {claim.sentence}")
    if not check:
        (output / "claims").mkdir(parents=True, exist_ok=True)
        (output / "claims/README.md").write_text(page(claims))


if __name__ == "__main__":
    tyro.cli(main)
