"""The program: arguments become one command, its document is printed, an exit code returned.

`gradlab list`, the command of what has a name here, stands beside the table of commands.

Exit codes: 0 done, 1 failed, 2 wrong usage (one line), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tyro.conf import Positional

import gradlab
from gradlab.cli import streams, usage
from gradlab.cli.answer import answer
from gradlab.cli.arguments import check_fields, check_words
from gradlab.cli.streams import Document, standard_error, terminable
from gradlab.errors import Failure, InputError, as_options, imported

KINDS = ("tasks", "estimators", "algorithms", "losses", "remedies")
_ESTIMATORS = {
    "data": "the critic alone: no derivative of any dynamics",
    "model": "states and Jacobians of the task's prior model",
    "mixed": "the simulator's states, the prior model's Jacobians",
    "true_dynamics": "states and Jacobians of the simulator",
    "model_all": "model with θ in every action, not in the first alone (law visited only)",
    "mixed_all": "mixed with θ in every action",
    "true_dynamics_all": "true_dynamics with θ in every action",
}

BESIDE = {
    "score": "likelihood ratio: no derivative of the simulator",
    "ivw": "both orders by inverse variance at each step (IVW-H)",
    "ddcg": "ivw where the return is smooth in the action, else the score (DDCG)",
    "total": "both orders mixed on the way backwards (total propagation)",
    "replayed": "the model's BPTT from visited states, what MBPO- and SVG-like loops follow",
    "cut_transition": "no gradient from a state into the next one",
    "decay": "seven decays from 0 to 0.99, and the full gradient (1)",
    "decay_0.9": "that gradient times 0.9 at every step (any number from 0 to below 1)",
    "stop_5": "that gradient with the state detached after every 5 steps (any number from 1)",
}


@dataclass(frozen=True)
class List:
    """Which tasks, estimators, algorithms, losses and remedies have a name here?

    A star marks defaults.

        gradlab list
        gradlab list algorithms --json
    """

    what: Positional[Literal["all", "tasks", "estimators", "algorithms", "losses", "remedies"]] = (
        "all"
    )
    """Which list."""
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Names with a line each, and those that are taken by default."""
        document: Document = {}
        taken: dict[str, list[str]] = {}
        asked = KINDS if self.what == "all" else (self.what,)
        if "tasks" in asked:
            from gradlab.tasks import TASKS

            document["tasks"] = {name: _first_line(make) for name, make in TASKS.items()}
        if "estimators" in asked:
            document |= {"estimators": _ESTIMATORS, "measure --also": BESIDE}
            taken["estimators"] = list(_ESTIMATORS)
        if "algorithms" in asked:
            from gradlab.training import ALGORITHMS

            document["algorithms"] = {name: row.described for name, row in ALGORITHMS.items()}
        if "losses" in asked:
            from gradlab.fitting.derivative_losses import LOSSES, Sobolev

            losses = {**{name: type(loss) for name, loss in LOSSES.items()}, Sobolev.name: Sobolev}
            document["losses"] = {name: _first_line(each) for name, each in losses.items()}
            taken["losses"] = ["nll"]
        if "remedies" in asked:
            with contextlib.suppress(InputError):  # a tool that is not there
                document["remedies"] = dict(imported("gradlab.tools.remedies.result:ABOUT"))
                taken["remedies"] = list(imported("gradlab.tools.remedies.result:DEFAULT"))
        counts = [f"{len(x)} {kind}" for kind, x in document.items() if kind in KINDS]  # type: ignore[arg-type]
        headline = ", ".join(counts) + ("; * marks defaults." if taken else ".")
        return {"headline": headline, "by default": taken} | document


def _first_line(of: object) -> str:
    return (of.__doc__ or "").strip().partition("\n")[0]


_INTERRUPTED, _TERMINATED = 130, 143
_LONGEST = 1000  # characters of a refusal


class _Command(Protocol):
    @property
    def json(self) -> bool: ...

    def run(self, command: str) -> Document: ...


# A further command is a row here and a dataclass with `json` and `run(command) → Document`; one of
# a tool is absent where the tool's folder is.
_ROWS: Mapping[str, str] = {
    "measure": "gradlab.cli.measure:Measure",
    "jacobians": "gradlab.tools.jacobians.command:JacobiansCommand",
    "race": "gradlab.tools.race.command:RaceCommand",
    "step": "gradlab.tools.race.command:StepCommand",
    "certify": "gradlab.tools.certify.command:Certify",
    "fit": "gradlab.cli.fit:FitCommand",
    "logs": "gradlab.tools.logs.command:Logs",
    "remedies": "gradlab.tools.remedies.command:RemediesCommand",
    "audit": "gradlab.cli.audit:AuditCommand",
    "train": "gradlab.cli.train:Train",
    "sweep": "gradlab.tools.sweep.command:SweepCommand",
    "compare": "gradlab.cli.reading:Compare",
    "choose": "gradlab.cli.reading:Choose",
    "report": "gradlab.cli.reading:Report",
    "figure": "gradlab.tools.papers.command:FigureCommand",
    "reproduce": "gradlab.tools.papers.command:ReproduceCommand",
    "check": "gradlab.tools.check.command:CheckCommand",
    "list": "gradlab.cli.program:List",
}


REMOVED: Mapping[str, str] = {  # by name: what to use instead
    "attribute": "gradlab measure --attribute",
    "board": "gradlab race",
    "init": "copy a file of examples/templates",
    "plan": "python examples/planning_in_a_model.py",
    "selftest": "make test",
    "watch": "gradlab report RUN.h5 --follow",
}


def command_of(name: str) -> type[_Command]:
    """The class of a command; a tool that is not there is an InputError."""
    found: type[_Command] = imported(_ROWS[name])
    return found


def commands() -> dict[str, type[_Command]]:
    """Those that are there, by name."""
    found = {}
    for name in _ROWS:
        with contextlib.suppress(InputError):
            found[name] = command_of(name)
    return found


_Answer = Callable[[Document, bool, bool], None]  # the document, as JSON?, explained?


def main(arguments: Sequence[str] | None = None, answer: _Answer = answer) -> int:
    """Runs one command, prints its document with `answer`, and returns its exit code."""
    # Before torch is imported: its threads spin while they wait, which on a busy machine takes
    # seven times the processor time of the work itself (measured with 2 threads on 2 cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # the last collection of all modules would take seconds
        atexit.register(gc.freeze)
    with streams.lasting():
        if words and words[0] in REMOVED:
            standard_error(f"gradlab {words[0]} was removed: {REMOVED[words[0]]}")
            return 2
        if words == ["--version"]:
            return streams.said(lambda: print(f"gradlab {gradlab.__version__}"), 0)
        try:
            check_words(words)
            command = parsed(words)
        except InputError as error:
            return _refused(error)
        except SystemExit as end:  # --help
            raise SystemExit(streams.said(lambda: None, int(end.code or 0))) from None
        except OSError as error:
            return streams.unsaid(error, 0)
        with terminable() as received, streams.in_one_line():
            try:
                # Output of a simulator or a user's file must not mix with the document.
                with contextlib.redirect_stdout(sys.stderr):
                    check_fields(command)
                    document = command.run(shlex.join(["gradlab", *words]))
            except InputError as error:
                return _refused(error)
            except (Failure, OSError) as error:  # a disk fails where nobody expects it
                standard_error(f"gradlab: failed: {_line(error)}")
                return 1
            except KeyboardInterrupt as stop:
                word = "terminated" if received else "interrupted"
                standard_error(f"gradlab: {word}; {_line(stop) or 'no file was left half-written'}")
                return _TERMINATED if received else _INTERRUPTED
        code = 0 if document.get("passed", True) else 1
        if "interrupted" in document:
            code = _TERMINATED if received else _INTERRUPTED
        explain = getattr(command, "explain", False)
        return streams.said(lambda: answer(document, command.json, explain), code)


def parsed(words: Sequence[str]) -> _Command:
    """The command of these words.

    Raises:
        InputError: they are wrong; SystemExit: they ask for help, which is printed.
    """
    name, *others = [*words, ""][: len(words) or 1]
    if name in ("-h", "--help"):
        print(usage.overview(commands()))
        raise SystemExit(0)
    if name not in _ROWS:
        said = f"gradlab has no command {name!r}" if name else "gradlab needs a command"
        raise InputError(f"{said}{usage.meant(name, _ROWS)}; see gradlab --help")
    command: _Command = usage.parsed(name, command_of(name), others)
    return command


def _refused(error: InputError) -> int:
    standard_error(f"gradlab: error: {_line(error)}")
    return 2


def _line(error: BaseException) -> str:
    """The message in one line, with the command line's names; the middle of a long one is cut
    out."""
    text = as_options(" ".join(str(error).split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
