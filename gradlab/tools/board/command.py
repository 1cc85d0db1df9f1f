"""`gradlab board`: the gradients of all estimators, by task and stage."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.terminal.progress_bars import standard_error
from gradlab.wording import duration

if TYPE_CHECKING:
    from gradlab.tools.board.result import Board, Group


@dataclass(frozen=True)
class BoardCommand:
    """What is each gradient worth, by task and stage, and how long does it last?

    Computes the missing cells of the board, one after another, and writes its page.
    Ctrl-C keeps every complete cell; the same command goes on.

        gradlab board reports/board --plan
        gradlab board reports/board --only path_tracking middle
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]] = Path("reports/board")
    """The board: tasks/, estimators/ and cells/."""
    only: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Tasks, stages, seeds and estimators to compute, as NAME or KIND=NAME. Default: all."""
    plan: bool = False
    """Print what is missing and its price; compute nothing."""
    hours: float | None = None
    """Begin no group after so many hours."""
    output: Annotated[Path | None, arg(metavar="PAGE.html")] = None
    """Where the page is written. Default: FOLDER/board.html."""
    json: bool = False
    """Print one JSON document: the table of the board."""
    explain: arguments.Explain = False

    def run(self, command: str) -> Document:
        """Compute what is missing; write the page."""
        from gradlab.cli.terminal.answer import of_screen
        from gradlab.reporting.output import named, write
        from gradlab.tools.board import compute
        from gradlab.tools.board.page import page, screen
        from gradlab.tools.board.result import load

        target = named(self.output or self.folder / "board.html")
        left = compute.missing(self.folder, self.only)
        prices = _prices(load(self.folder), left)
        seconds = sum(prices.values())
        known = f"about {duration(seconds)}" if seconds else "price unknown"
        cells = sum(map(len, left.values()))
        standard_error(f"gradlab: {cells} cells of {len(left)} groups are missing, {known}")
        if self.plan:
            rows = [
                {**asdict(group), "estimators": list(names), "hours": prices[group] / 3600}
                for group, names in left.items()
            ]
            return {"headline": f"{cells} cells are missing, {known}.", "plan": rows}
        stopped = _build(self.folder, left, self.hours)
        board = load(self.folder)
        write(target, page(board, command))
        document = of_screen(screen(board)) | {
            "report": str(target),
            "table": board.table().to_dict("records"),
        }
        if stopped:
            document["interrupted"] = "every cell that was known is kept"
        return document


def _prices(board: Board, left: Mapping[Group, tuple[str, ...]]) -> dict[Group, float]:
    """Seconds of the missing cells of each group, by the median of the nearest that are known: the
    same task and estimator, the same task, any."""
    known = [cell for cell in board.cells if cell.wall]

    def price(group: Group, name: str) -> float:
        task = [cell for cell in known if cell.task == group.task]
        for near in ([cell for cell in task if cell.estimator == name], task, known):
            if near:
                return median(cell.wall for cell in near)
        return 0.0

    return {group: sum(price(group, name) for name in names) for group, names in left.items()}


def _build(
    folder: Path,
    left: Mapping[Group, tuple[str, ...]],
    hours: float | None,
) -> bool:
    """Compute what is left, group by group; whether Ctrl-C ended it before."""
    from gradlab.tools.board.result import load

    begun, waiting = time.monotonic(), deque(left.items())

    def due() -> bool:
        return bool(waiting) and (hours is None or time.monotonic() - begun < 3600 * hours)

    def said(group: Group, seconds: float) -> None:
        done = len(left) - len(waiting)
        rest = duration(sum(_prices(load(folder), dict(waiting)).values()))
        what = f"{group.task}, {group.stage}, seed {group.seed}: {duration(seconds)}"
        standard_error(f"gradlab: {done} of {len(left)} groups; {what}; about {rest} left")

    try:
        from gradlab.tools.board.compute import Builder

        builder = Builder(str(folder), os.getcwd())
        while due():
            group, names = waiting.popleft()
            said(group, builder.build(group, names))
    except KeyboardInterrupt:
        return True
    return False
