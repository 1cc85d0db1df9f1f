"""`gradlab figure NAME RUNS…` and `gradlab reproduce PAPER ITEM`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradlab.cli.streams import Document, standard_error, undisturbed


@dataclass(frozen=True)
class FigureCommand:
    """How does one figure of a paper look, from your own runs?

    One run: any figure of its report, by its file name there. Several: those of their comparison.
    Names of training runs: returns, returns-time, learning-curves, return-horizons, loss-settings,
    convergence, tracking, value, updates, update-times, weights, gradient-relative,
    gradient-horizons, error-horizon, model-prediction, model-errors; of fits: fit-errors; of
    measurements: gain, mse, error-1-model, loss-surface, cosine, snr, sample_norm, variance.
    Tables, as Markdown and CSV: table-returns, table-times, table-planning. docs/papers.md
    has the papers' figures by these names. What is drawn is written as a table beside it.

        gradlab figure returns runs/mpg-v2.h5 runs/td3.h5 --output returns.pdf
        gradlab figure convergence runs/mpg-v2.h5 runs/sac.h5 --width double
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """An unknown one lists those that the runs have."""
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN.h5|FOLDER")]
    """In the order of the legend; a sweep's folder stands for its runs."""
    output: Annotated[Path | None, arg(metavar="FILE.png|pdf|svg")] = None
    """Default: runs/NAME.png."""
    width: Annotated[str | None, arg(metavar="single|text|double")] = None
    """Width of a paper's column. Default: a page's."""
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Draw, and write the figure and its table."""
        from gradlab.tools.papers.figures import (
            TABLES,
            chosen,
            markdown,
            save,
            sized,
            training_runs,
            write,
        )

        if self.name in TABLES:
            table = TABLES[self.name](training_runs(self.runs))
            target = self.output or Path("runs") / f"{self.name}.md"
            files = write(table, target)
            return {
                "headline": f"{', '.join(files)} are written.",
                "text": markdown(table),
                "figure": str(target), "table": table.to_dict("records"),
            }  # fmt: skip
        target = self.output or Path("runs") / f"{self.name}.png"
        found = chosen(self.name, self.runs)
        sized(found.figure, self.width)
        table = save(found, target)
        return {
            "headline": f"{target} is drawn. {found.caption}", "figure": str(target),
            "table": table.to_dict("records"),
        }  # fmt: skip


@dataclass(frozen=True)
class ReproduceCommand:
    """What does a paper's table or figure become here?

    Prints iterations and transitions of every run, trains what is missing, one run after the other,
    and writes figures, a page and tables (Markdown, CSV) that have the paper's numbers, too.
    The same command goes on with what was stopped. A row has the settings that its paper prints for
    the task, as --preset of `gradlab train`; MPG's have its Table VI's, in one process.

        gradlab reproduce mpg table-1 --plan
        gradlab reproduce mpg figure-3 --share 0.2 --rows mpg-v2 td3
    """

    paper: Annotated[Positional[str], arg(metavar="PAPER")]
    """mpg, maac, ddppo or rp-pgm."""
    item: Annotated[Positional[str], arg(metavar="ITEM")]
    """table-1, figure-3, …; an unknown one lists the paper's."""
    rows: tuple[str, ...] = ()
    """Some algorithms. Default: all."""
    tasks: tuple[str, ...] = ()
    """Some tasks. Default: all."""
    seeds: int = 5
    """Seeds of every run."""
    share: float = 1.0
    """Share of the paper's length."""
    preset: Literal["paper", "none"] = "paper"
    """The paper's settings, or gradlab's list, which costs a fraction."""
    device: str | None = None
    """Such as cuda. Default: cpu."""
    plan: bool = False
    """Print the runs alone."""
    folder: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Default: runs/PAPER-ITEM."""
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Train what is missing, and write tables, figures and pages."""
        from gradlab.tools.papers import published

        item = published.find(self.paper, self.item)
        item = published.narrowed(item, self.rows, self.tasks)
        with undisturbed():
            from gradlab.reporting.output import compare
            from gradlab.tools.papers import reproduction as made
            from gradlab.tools.papers.figures import TABLES, chosen, markdown, save, write

        folder = self.folder or Path("runs") / f"{self.paper}-{self.item}"
        due = made.planned(item, folder, self.seeds, self.share, self.preset, self.device)
        plan: list[dict[str, object]] = []
        for each in due:
            there = f"{each.done:,} made" if each.done else ""
            words = (f"{each.iterations:,} iterations", f"{each.transitions:,} transitions",
                     f"seeds: {self.seeds}", each.whose, there)  # fmt: skip
            told = ", ".join(filter(None, words))
            standard_error(f"gradlab: {each.row} on {each.part.task}: {told}")
            plan.append({
                "row": each.row, "task": each.part.task, "iterations": each.iterations,
                "transitions": each.transitions, "seeds": self.seeds, "done": each.done,
                "preset": each.command.preset, "path": str(each.path),
            })  # fmt: skip
        if self.plan:
            return {"headline": f"{item.title}: {len(due)} runs.", "plan": plan}
        made.run_missing(due, command)
        tables, files, text = {}, [], []
        for part in item.parts:
            runs = made.runs_of(part, folder)
            if not runs:
                continue
            paths = [made.path_of(part, row, folder) for row in runs]
            table = TABLES[item.table](runs)
            tables[part.task] = table.to_dict("records")
            text.append(markdown(table))
            files += write(table, folder / f"{part.task}-table.csv")
            for name in item.figures:
                target = folder / f"{part.task}-{name}.pdf"
                save(chosen(name, paths), target)
                files.append(str(target))
            if len(paths) > 1:
                files.append(str(compare(paths, folder / f"{part.task}.html")))
        return {
            "headline": f"{item.title}: {len(due)} runs are there.",
            "text": "\n".join([*text, *files]), "plan": plan, "tables": tables, "files": files,
        }  # fmt: skip
