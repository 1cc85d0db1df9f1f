"""Everything hostile that gradlab has been tried with, and what came of it.

    python -m tests.robustness.campaign            # reports/scale/robustness.csv, about 40 min
    python -m tests.robustness.campaign --share .1

One row per kind of input: how many, and how often each outcome was met. What must be 0 is every
outcome that a kind does not allow. Rows are written as they are found, and a kind that is there is
not tried again; --fresh begins anew.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from tests.robustness import adversity, arguments, calls, flips, kills

HOME = Path("reports/scale")


@dataclass(frozen=True)
class Kind:
    """One kind of hostile input.

    Attributes:
        work: (count, seed) → how often each outcome was met.
        allowed: outcomes that may be met.
    """

    work: Callable[[int, int], Counter[str]]
    count: int
    allowed: Collection[str]


def drawn_arguments(count: int, seed: int) -> Counter[str]:
    """Command lines with one or two hostile options each."""
    with tempfile.TemporaryDirectory() as folder:
        arguments.prepared(Path(folder))
        draws = islice(arguments.draws(random.Random(seed)), count)
        return Counter(arguments.run(words, Path(folder)).kind for words in draws)


KINDS: Mapping[str, Kind] = {
    "arguments of public functions": Kind(calls.call_outcomes, 3000, calls.ALLOWED),
    "arguments of commands": Kind(drawn_arguments, 3000, arguments.OUTCOMES),
    **{
        f"one flipped bit: {name}": Kind(
            partial(flips.flip_outcomes, name), 10_000 // len(flips.KINDS), flips.ALLOWED
        )
        for name in flips.KINDS
    },
    "kills of a writer or its fold": Kind(kills.kill_outcomes, 200, kills.ALLOWED),
    **{
        name: Kind(work, size, adversity.ALLOWED)
        for name, (work, size) in adversity.ADVERSITIES.items()
    },
}


def run(names: Collection[str], share: float, seed: int, table: Path) -> int:
    """Tries the kinds that `table` lacks; returns how many outcomes were not allowed in all."""
    done = _done(table)
    wrong = sum(int(row["not allowed"]) for row in done.values())
    for name in names:
        if name in done:
            continue
        kind, begun = KINDS[name], time.monotonic()
        found = kind.work(max(1, round(kind.count * share)), seed)
        bad = sum(count for outcome, count in found.items() if outcome not in kind.allowed)
        wrong += bad
        words = ", ".join(f"{count} {outcome}" for outcome, count in found.most_common())
        _append(table, name, found.total(), words, bad, time.monotonic() - begun)
        print(f"{name}: {words}", flush=True)
    return wrong


def _done(table: Path) -> dict[str, dict[str, str]]:
    if not table.is_file():
        return {}
    with table.open(newline="") as file:
        return {row["input"]: row for row in csv.DictReader(file)}


def _append(table: Path, name: str, inputs: int, words: str, bad: int, seconds: float) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    fresh = not table.is_file()
    with table.open("a", newline="") as file:
        rows = csv.writer(file)
        if fresh:
            rows.writerow(["input", "inputs", "outcomes", "not allowed", "seconds"])
        rows.writerow([name, inputs, words, bad, f"{seconds:.0f}"])


def main() -> int:
    """0 where nothing was met that is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Raw)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--fresh", action="store_true", help="forget what has been tried")
    parser.add_argument("--table", type=Path, default=HOME / "robustness.csv")
    asked = parser.parse_args()
    if asked.fresh:
        asked.table.unlink(missing_ok=True)
    return min(run(asked.only, asked.share, asked.seed, asked.table), 1)


Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    raise SystemExit(main())
