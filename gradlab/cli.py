"""The command line: dataclasses that say what may be asked, and the calls that answer.

    gradlab measure TASK → RUN.h5 + RUN.html      gradlab report RUN.h5 → RUN.html
    gradlab list                                  gradlab selftest

Exit codes: 0 done, 1 failed, 2 wrong usage (one line says what to change), 130 interrupted.
With --json, standard output is one JSON document; progress and messages go to standard error.
Numerical packages are imported when a command needs them, so that --help is quick.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg, subcommand

from gradlab import records
from gradlab.errors import InputError
from gradlab.progress import bars

if TYPE_CHECKING:
    from torch import nn

    from gradlab.hooks import Progress
    from gradlab.profile import Profile
    from gradlab.tasks import Task

Document = dict[str, object]
Settings = UseAppendAction[tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Measure:
    """Measure bias, variance and direction of a task's policy gradients over the horizon."""

    task: Annotated[Positional[str], arg(metavar="TASK")]
    """A task of `gradlab list tasks`, or your own as file.py:function."""
    settings: Annotated[Settings, arg(name="set", metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """Parameters of the task; values are JSON, or else text."""
    policy: Annotated[str | None, arg(metavar="FILE")] = None
    """Policy to judge: .safetensors file or file.py:function. Default: make a stabilising one."""
    critic: Annotated[str | None, arg(metavar="FILE")] = None
    """Critic for the tail: .safetensors file or file.py:function. Default: fit one."""
    horizon: Annotated[int | None, arg(metavar="H")] = None
    """Largest horizon, in steps. Default: the task's."""
    starts: int = 2048
    """Number of start states, one gradient sample each."""
    batch: int = 256
    """N′, the samples that one update of your algorithm averages; MSE = bias² + variance / N′."""
    termination: Literal["ignore", "mask"] = "ignore"
    """What happens at terminal states: go on as in the papers' model rollouts, or stop there."""
    truth: Literal["matched"] = "matched"
    """Reference of every bias: the gradient that each estimator aims at."""
    seed: int = 0
    """Seed of every random draw."""
    output: Annotated[Path | None, arg(metavar="RUN.h5")] = None
    """Where the run is written (.h5). Default: runs/TASK.h5."""
    overwrite: bool = False
    """Replace an earlier run of that name."""
    no_report: bool = False
    """Write no HTML report next to the run."""
    json: bool = False
    """Print one JSON document: verdict, table and paths."""


@dataclass(frozen=True)
class Report:
    """Write the HTML report and the figures of a run."""

    run: Annotated[Positional[Path], arg(metavar="RUN.h5")]
    """The run, RUN.h5."""
    json: bool = False
    """Print one JSON document: verdict and paths."""


@dataclass(frozen=True)
class List:
    """List what can be measured, and with which estimators."""

    what: Positional[Literal["all", "tasks", "estimators"]] = "all"
    """Which list."""
    json: bool = False
    """Print one JSON document."""


@dataclass(frozen=True)
class Selftest:
    """Does gradlab find known answers, and catch usual mistakes, on this machine?"""

    json: bool = False
    """Print one JSON document: every check."""


Command = (
    Annotated[Measure, subcommand("measure")]
    | Annotated[Report, subcommand("report")]
    | Annotated[List, subcommand("list")]
    | Annotated[Selftest, subcommand("selftest")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked: Measure | Report | List | Selftest = tyro.cli(
        Command,
        prog="gradlab",
        description="How good is your policy gradient?",
        args=words,
        config=(FlagCreatePairsOff,),
    )
    try:
        # Whatever a simulator or a user's file prints must not mix with the answer.
        with contextlib.redirect_stdout(sys.stderr):
            document = _run(asked, shlex.join(["gradlab", *words]))
    except InputError as error:
        print(f"gradlab: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gradlab: interrupted; no file was left half-written", file=sys.stderr)
        return 130
    try:
        _answer(document, asked.json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stdout = None
    return 0 if document.get("passed", True) else 1


def _run(asked: Measure | Report | List | Selftest, command: str) -> Document:
    match asked:
        case Measure():
            return _measure(asked, command)
        case Report():
            return _report(asked)
        case List():
            return _list(asked)
        case Selftest():
            return _selftest()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until the imports inside are done: interrupted C extensions fail strangely."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _measure(asked: Measure, command: str) -> Document:
    with _undisturbed():
        from gradlab.measurement import check_arguments, check_networks, measure
        from gradlab.networks import checkpoint
        from gradlab.tasks import task_from_name

    task = task_from_name(asked.task, _settings(asked.settings))
    run = asked.output or Path("runs") / f"{task.name}.h5"
    horizon = task.horizon if asked.horizon is None else asked.horizon
    check_arguments(horizon, asked.starts, asked.batch, asked.truth, asked.termination)
    _check_outputs(asked, run)
    given = _given(asked)
    check_networks(task, given.get("policy"), given.get("critic"))
    with bars() as progress:
        networks = given | _made(asked, task, given, progress)
        profile = measure(
            task,
            networks["policy"],
            networks["critic"],
            horizon=horizon,
            starts=asked.starts,
            batch=asked.batch,
            truth=asked.truth,
            termination=asked.termination,
            seed=asked.seed,
            progress=progress,
            command=command,
        )
    for kind in sorted(networks.keys() - given.keys()):
        checkpoint.save(networks[kind], _beside(run, kind))
    profile.save(run, overwrite=asked.overwrite)
    document: Document = {"verdict": _sentences(profile), "run": str(run)}
    if not asked.no_report:
        from gradlab.reporting import report

        document["report"] = str(report(run))
    return document | {"table": profile.table().to_dict("records")}


def _check_outputs(asked: Measure, run: Path) -> None:
    """Everything that may be refused is refused before the long work begins."""
    if run.suffix not in (".h5", ".hdf5"):
        raise InputError(f"--output is {run}: name a file that ends in .h5")
    records.check_output(run, asked.overwrite)
    for given, kind in ((asked.policy, "policy"), (asked.critic, "critic")):
        if given is None:
            records.check_output(_beside(run, kind), asked.overwrite)
    if not asked.no_report:
        from gradlab.reporting.output import check_page

        check_page(run)


def _given(asked: Measure) -> dict[str, nn.Module]:
    """The networks that were named, loaded before any work begins."""
    from gradlab.networks.checkpoint import load

    files = {"policy": asked.policy, "critic": asked.critic}
    return {kind: load(file) for kind, file in files.items() if file is not None}


def _made(
    asked: Measure, task: Task, given: Mapping[str, nn.Module], progress: Progress
) -> dict[str, nn.Module]:
    """The networks that were not named: a stabilising policy, a critic fitted to the policy."""
    made: dict[str, nn.Module] = {}
    if "policy" not in given:
        from gradlab.fitting.policies import stabilising_policy

        made["policy"] = stabilising_policy(task, seed=asked.seed, progress=progress)
    if "critic" not in given:
        from gradlab.fitting.critics import fit_critic

        policy = given.get("policy") or made["policy"]
        made["critic"] = fit_critic(
            task, policy, termination=asked.termination, seed=asked.seed, progress=progress
        )
    return made


def _beside(run: Path, kind: str) -> Path:
    return run.with_name(f"{run.stem}.{kind}.safetensors")


def _settings(groups: tuple[tuple[str, ...], ...]) -> dict[str, object]:
    """name=value pairs; a value is JSON where it parses, else the text itself."""
    settings: dict[str, object] = {}
    for pair in (pair for group in groups for pair in group):
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set got {pair!r}, expected NAME=VALUE")
        if name in settings:
            raise InputError(f"--set names {name!r} twice: keep one")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


def _report(asked: Report) -> Document:
    from gradlab.profile import load
    from gradlab.reporting import report

    page = report(asked.run)
    return {"verdict": _sentences(load(asked.run)), "report": str(page)}


def _sentences(profile: Profile) -> list[Document]:
    from gradlab.verdict import verdict

    return [asdict(sentence) for sentence in verdict(profile)]


ESTIMATORS = {
    "data": "the critic alone at the start state: no derivative of any dynamics",
    "model": "states and Jacobians of the task's prior model",
    "mixed": "the simulator's states, the prior model's Jacobians",
    "true_dynamics": "states and Jacobians of the simulator",
}


def _list(asked: List) -> Document:
    document: Document = {}
    if asked.what in ("all", "tasks"):
        from gradlab.tasks import TASKS

        document["tasks"] = {name: _first_line(make.__doc__) for name, make in TASKS.items()}
    if asked.what in ("all", "estimators"):
        document["estimators"] = ESTIMATORS
        document["named estimators"] = _named_estimators()
    return document


def _named_estimators() -> dict[str, str]:
    """Functions of `gradlab.gradients.named` that give an estimator, for the Python interface."""
    import inspect

    from gradlab.gradients import named

    makers = inspect.getmembers(named, inspect.isfunction)
    return {
        name: _first_line(maker.__doc__)
        for name, maker in makers
        if maker.__module__ == named.__name__ and not name.startswith("_")
        if inspect.signature(maker).return_annotation in ("Estimator", "Mixture")
    }


def _selftest() -> Document:
    with _undisturbed():
        from gradlab.selftest import selftest

    with bars() as progress:
        checks = selftest(progress)
    return {
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) | {"passed": check.passed} for check in checks],
    }


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _answer(document: Document, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(document), allow_nan=False, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False, markup=False)
    verdict = document.get("verdict")
    for sentence in verdict if isinstance(verdict, list) else []:
        console.print(f"• {sentence['text']}", style="bold" if sentence["decided"] else None)
    checks = document.get("checks")
    if isinstance(checks, list):
        _print_checks(checks)
    for kind in ("run", "report"):
        if kind in document:
            print(f"{kind + ':':8}{document[kind]}")
    for kind in ("tasks", "estimators", "named estimators"):
        entries = document.get(kind)
        if isinstance(entries, dict):
            print(f"{kind}:")
            for name, line in entries.items():
                print(f"  {name:18}{line}")


def _print_checks(checks: list[dict[str, Any]]) -> None:
    width = max(len(check["name"]) for check in checks)
    print(f"{'':4}  {'':{width}}  {'known':>11} {'measured':>11}  {'interval':25} mistake gives")
    for check in checks:
        mark = "ok" if check["passed"] else "FAIL"
        span = f"[{check['low']:.4g}, {check['high']:.4g}]"
        mistake = "" if check["mistake"] is None else f"{check['mistake']:.4g}"
        numbers = f"{check['known']:11.4g} {check['measured']:11.4g}  {span:25} {mistake}"
        print(f"{mark:4}  {check['name']:{width}}  {numbers}")
    failed = sum(not check["passed"] for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")


def _plain(value: Any) -> Any:
    """What JSON can say: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
