"""A claim, what was measured, and whether it holds: saved in one file of a folder and one table.

python -m analyses.harness.verdicts [--output reports/identities]  writes README.md
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analyses.claims.parts import PARTS, PREMISES, parts_of
from analyses.harness.criteria import OUTCOMES, VERDICTS, Outcome, Part, outcome, read_verdicts
from gradlab.provenance import environment

FOLDER = Path("reports/identities")
THERE = (
    "*What is named here and not in the tree (code, run files, single numbers) is at commit "
    "57789d45: `git worktree add build/57789d45 57789d45`, then the command there.*"
)
HEADER = "# Claims of the papers, tested again: {subject}\n"
NOTE = """
{there}

Each row is one script; `verdicts.json` has its numbers.
The outcome is about the paper's sentence ([five outcomes](../README.md)); sizes are ours.
Intervals are 95% unless the verdict names another.
"""
FIRST, TITLE = "## What to do\n", "## Verdicts\n"
TABLE = """
| claim | paper | outcome | command, commit |
|---|---|---|---|
"""
# Below the table, for each claim.
NUMBERS = """
| number | value [95%] | asked | |
|---|---|---|---|"""
MOST = 16  # numbers that one table has
OURS = {"size": " (size, ours)", "time": " (equal time, ours)"}
OUTSIDE = r"(?![^()]*\))"  # of brackets
INTERVAL = r"[^\[\]()]+ \[[^\]…]+\][^,\[\]()]*"  # of a label, with a word that follows
FOLDED = """<details><summary>Every number in words</summary>

{text}

</details>
"""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim.

    Attributes:
        criterion: what had to be seen, in one sentence.
        holds: it was seen.
        sentence: the verdict in words, with its numbers and intervals.
        numbers: the same numbers for machines.
        table, figure: every value behind them, and their picture.
    """

    claim: str
    paper: str
    criterion: str
    holds: bool
    sentence: str
    numbers: Mapping[str, float]
    table: pd.DataFrame = field(repr=False)
    figure: Figure | None = field(default=None, repr=False)


def save(verdict: Verdict, output: Path, command: str) -> None:
    """Print the sentence; write it into the folder's verdicts.json, and {claim}.csv and .png."""
    output.mkdir(parents=True, exist_ok=True)
    stem = output / verdict.claim.lower()
    made = {
        "claim": verdict.claim,
        "paper": verdict.paper,
        "criterion": verdict.criterion,
        "holds": verdict.holds,
        "sentence": verdict.sentence,
        "numbers": {name: float(f"{value:.6g}") for name, value in verdict.numbers.items()},
        "command": command,
        "environment": checked(environment()),
    }
    # In the order of the pages: a claim comes after those whose names go on from its own.
    every = read_verdicts(output) | {stem.name: made}
    kept = {name: every[name] for name in sorted(every, key=lambda name: f"{name}.")}
    (output / VERDICTS).write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    if len(verdict.table):
        verdict.table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.8g")
    if verdict.figure is not None:
        FigureCanvasAgg(verdict.figure)
        verdict.figure.savefig(stem.with_suffix(".png"), dpi=110)
    print(f"{verdict.claim}: {word(made, output)}. {verdict.sentence}")


def checked(made: Mapping[str, str]) -> dict[str, str]:
    """An environment, which says where its commit is in no history: of a tree with changes, or of a
    branch that is gone."""
    marked = {} if in_history(made["commit"]) else {"in history": "no"}
    return {**made, **marked}


def in_history(commit: str) -> bool:
    words = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def study(
    measure: Callable[[bool], Verdict], folder: Path, page: Callable[[Path], None] | None = None
) -> None:
    """The command of a study that measures and judges at once.

    Args:
        measure: the verdict; with True of few seeds and a short world.
        folder: of the verdict, where --output names no other.
        page: writes the page of such a folder again.
    """
    command = f"python -m {sys.modules['__main__'].__spec__.name}"

    def run(small: bool = False, output: Path = folder) -> None:
        """Measure, judge, and save the verdict.

        Args:
            small: few seeds and a short world.
            output: folder of the verdict.
        """
        save(measure(small), output, command)
        if page is not None:
            page(output)

    tyro.cli(run)


def put(page: Path, mark: str, text: str) -> None:
    """Text between a page's marks, <!-- mark --> and <!-- /mark -->; nothing where no page is."""
    if page.is_file():
        place = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
        page.write_text(place.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page.read_text()))


def main(output: Path = FOLDER) -> None:
    """Write README.md from the verdicts in the folder. What to do comes before them, where the page
    has such a section; all others stay after them.

    Args:
        output: folder of the verdicts.
    """
    rows = list(read_verdicts(output).values())
    page = output / "README.md"
    written = page.read_text() if page.is_file() else ""
    sections = [part.rstrip() + "\n" for part in re.split(r"^(?=## )", written, flags=re.M)[1:]]
    kept = [part for part in sections if not part.startswith(TITLE)]
    first = [part for part in kept if part.startswith(FIRST)]
    claims = "\n".join(filter(None, (TITLE, found(rows, output))))
    claims += NOTE.format(there=THERE) + listed(rows, output)
    others = [part for part in kept if part not in first]
    head = HEADER.format(subject=output.name.replace("-", " "))
    page.write_text("\n".join((head, *first, claims, *others)))


def found(verdicts: Sequence[Mapping[str, object]], folder: Path) -> str:
    """The claims of a folder in words, by their outcomes."""
    from analyses.claims.__main__ import CLAIMS  # which puts its tables by this module

    words = {str(made["claim"]): word(made, folder) for made in verdicts}
    ours = [(words.get(claim.file.rpartition("/")[2].upper()), claim) for claim in CLAIMS]
    texts = {each: [f"{c.text} ({c.id})" for its, c in ours if its == each] for each in OUTCOMES}
    return "".join(f"- **{each}**: {'; '.join(texts[each])}\n" for each in OUTCOMES if texts[each])


def listed(verdicts: Sequence[Mapping[str, object]], folder: Path) -> str:
    """A table of the verdicts saved in a folder, and what each was decided by."""
    rows = (row(made, folder) for made in verdicts)
    return TABLE + "".join((*rows, *(decided(made, folder) for made in verdicts)))


def decided(made: Mapping[str, object], folder: Path) -> str:
    """What was asked, the numbers that decide, one a line, and every other folded."""
    parts = [part for part in parts_at(made, folder) or () if part.of != "beside"]
    order = ("missed", "undecided", "met")
    parts = sorted(parts, key=lambda part: (part.of != "sentence", order.index(part.state)))
    lines = [
        f"| {part.label}{OURS.get(part.of, '')} | {part.shown} | {part.asked} | {part.state} |"
        for part in parts[:MOST]
    ]
    if len(parts) > MOST:
        left = Counter(part.state for part in parts[MOST:])
        more = ", ".join(f"{left[state]} {state}" for state in order if left[state])
        lines.append(f"| {len(parts) - MOST} more | | | {more} |")
    table = "\n".join((NUMBERS, *lines, "")) if lines else ""
    title = f"**{made['claim']}: {word(made, folder)}.** Asked: {made['criterion']}."
    words = "\n".join(one_a_line(str(made["sentence"])))
    return f"\n{title}\n{table}\n{FOLDED.format(text=words)}"


def one_a_line(sentences: str) -> Iterator[str]:
    """A verdict's sentences as a list, a clause a line; under their title where the first clause
    has one that the others share ("Lowest: at h = 1: 0.5; at h = 4: 0.6"). A clause that names
    several intervals after its title has a line for each."""
    for sentence in re.split(rf"(?<=\.)(?<!eq\.)(?<!Fig\.) {OUTSIDE}", sentences):
        first, *others = re.split(rf"; {OUTSIDE}", sentence.rstrip("."))
        colons = [re.sub(r"\([^)]*\)", "", each).count(": ") for each in (first, *others)]
        if others and colons[0] > max(colons[1:]):
            title, _, first = first.partition(": ")
            yield f"- {title}:"
            yield from (f"  {line}" for each in (first, *others) for line in _spread(each))
        else:
            yield from (line for each in (first, *others) for line in _spread(each))


def _spread(clause: str) -> Iterator[str]:
    """A clause as one line; or its title, and a line for each interval."""
    title, _, rest = clause.partition(": ")
    item = f"({INTERVAL})(?:, |$)"
    if len(items := re.findall(item, rest)) > 1 and re.fullmatch(f"(?:{item})+", rest):
        yield f"- {title}:"
        yield from (f"  - {each}" for each in items)
    else:
        yield f"- {clause}"


def row(made: Mapping[str, object], folder: Path) -> str:
    """The line of one verdict in a table of claims."""
    kept = made["environment"]
    assert isinstance(kept, dict)
    lost = " (in no history)" if kept.get("in history") == "no" else ""
    source = f"`{made['command']}`, {kept['commit']}{lost}"
    return f"| {made['claim']} | {made['paper']} | **{word(made, folder)}** | {source} |\n"


def word(made: Mapping[str, object], folder: Path) -> Outcome:
    """The outcome of a verdict by its parts; of one without any, by what it says itself."""
    parts = parts_at(made, folder)
    if parts is None:
        return "holds" if made["holds"] else "undecided"
    return outcome(parts)


def parts_at(made: Mapping[str, object], folder: Path) -> list[Part] | None:
    """The parts of its criterion, none where it was not tried; None: it has no parts, or is of a
    run at a smaller scale, which lacks numbers of them."""
    claim = str(made["claim"])
    with suppress(KeyError):
        if claim in PARTS or claim in PREMISES:
            return parts_of(claim, folder / claim.lower())
    return None


if __name__ == "__main__":
    tyro.cli(main)
