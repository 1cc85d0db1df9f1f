"""Hostile arguments of every command, in process: what the command line does with them.

    refused      exit code 2 and one line on standard error, or the parser's own box
    began        accepted: the work, which is left out here, would have begun
    done         a command that only reads or lists ended well
    traceback    any exception, or another exit code
    output       refused, but not in one line

`draws(generator, folder)` goes on for ever; `GRID` is what must be refused whatever comes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

import gradlab
from gradlab import cli
from gradlab.data.trajectories import from_rows
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic

LQR = ("linear_quadratic",)
HUGE = "9" * 400
OUTCOMES = frozenset({"refused", "began", "done"})

WHOLE = (
    "-1", "0", "-0", "1", str(2**31), str(2**63 - 1), str(2**63), str(-(2**63) - 1), HUGE,
    f"-{HUGE}", "9" * 5000, "1e9", "1000000000", "1.5", "nan", "inf", "", " ", "٣", "0x10",
    "1_000", "true", "[]",
)  # fmt: skip
REAL = (
    "nan", "inf", "-inf", "-1", "0", "1", "1e308", "1e999", "-1e-320", HUGE, "9" * 5000, "", "0,5",
    "0.98", "2",
)  # fmt: skip
TEXT = (
    "", " ", "\0", "a\0b", "\udcff", "\ud800", "x" * 300, "x" * 5000, "../" * 2000, "~", "-", "--",
    "\n", "☃", "%s%n", "$(true)", "{}", "no_such", ".", "..", "/", ":", "::", ".py:", "a.py:", ":f",
)  # fmt: skip
SET = (
    "", "=", "=1", "A", "A=", "A=[", f"A={HUGE}", f"A=-{HUGE}", f"A={'[' * 400}{']' * 400}",
    f"A={'[' * 100_000}", f"A={json.dumps([[0.0] * 60_000])}", "A=NaN", "A=Infinity", "A=1e999",
    'A="\\u0000"', 'A="\\ud800"', "discount=2", "discount=nan", "discount=NaN", "discount=-1",
    "discount=true", "discount=[]", "discount={}", 'discount="0.9"', f"discount={HUGE}", "A=null",
    "A=[[1]]", "A=[[1,2]]", "B=[[1]]", "A=[]", "Q=[[-1]]", "horizon=1", "__class__=1", "A=A=A",
    "start_mean=[[0]]", "start_covariance=[[-1,0],[0,-1]]", "prior=[1]", "prior=[[],[]]",
    "\udcff=1",
)  # fmt: skip


LOSS = """
import torch
def sound():
    actor = torch.nn.Linear(2, 1)
    return dict(loss=lambda: actor(torch.ones(4, 2)).mean(), actor=actor)
"""


RUNS = """
command = "measure"
[settings]
task = "linear_quadratic"
[grid]
seed = [0, 1]
"""


@dataclass(frozen=True)
class Outcome:
    """What the command line did: see the kinds above; `code` is its exit code."""

    kind: str
    code: object
    out: str
    err: str


class Began(BaseException):
    """The work would have begun."""


def _began(*_: object, **__: object) -> None:
    raise Began


# Where each command begins to work, everything before it being checks.
WORK = (
    "gradlab.measurement.measure.conduct", "gradlab.fitting.critics.fitted_networks",
    "gradlab.fitting.policies.stabilising_policy",
    "gradlab.tools.jacobians.compute.compare_jacobians", "gradlab.tools.certify.compute.certify",
    "gradlab.fitting.collection.collect",
    "gradlab.cli.fit.FitCommand._fitted", "gradlab.tools.logs.compute.measure_logs",
    "gradlab.tools.remedies.compute.compare_remedies",
    "gradlab.training.loop.train",
    "gradlab.reporting.output.write",
    "gradlab.tools.sweep.running.run_all",
)  # fmt: skip


def run(words: Sequence[str], folder: Path) -> Outcome:
    """One command line within a folder, its work left out."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.ExitStack() as stack:
            for name in WORK:
                stack.enter_context(patch(name, _began))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            code: object = cli.main(list(words))
    except Began:
        return Outcome("began", None, out.getvalue(), err.getvalue())
    except SystemExit as end:
        code = end.code
    except Exception as error:
        return Outcome("traceback", repr(error)[:300], out.getvalue(), err.getvalue())
    finally:
        os.chdir(before)
    return Outcome(_kind(code, err.getvalue()), code, out.getvalue(), err.getvalue())


def _kind(code: object, err: str) -> str:
    if "Traceback" in err or code not in (0, 2):
        return "traceback"
    if code == 0:
        return "done"
    lines = err.splitlines()
    own = len(lines) == 1 and lines[0].startswith("gradlab: error: ") and len(lines[0]) < 2000
    box = err.lstrip().startswith(("╭", "+-", "usage", "Parsing"))
    return "refused" if own or box else "output"


@dataclass(frozen=True)
class Command:
    """A command line that would work, and its options by what they take."""

    words: tuple[str, ...]
    whole: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    output: str = ""


def commands() -> Mapping[str, Command]:
    """Every command on the files of `prepared`."""
    given = ("--policy", "policy.safetensors", "--critic", "critic.safetensors")
    own = (*LQR, "--no-report")
    return {
        "measure": Command(
            ("measure", *own, *given), ("horizon", "starts", "batch", "judges", "seed"),
            ("trim-starts",),
            ("set", "termination", "law", "truth", "spectral"),
            ("model", "gradient-model", "policy", "critic"), "new.h5",
        ),
        "jacobians": Command(
            ("jacobians", *own, *given[:2]), ("horizon", "starts", "seed"), (), ("set",),
            ("model", "gradient-model", "data", "policy", "profile"), "new.h5",
        ),
        "certify": Command(
            ("certify", *LQR, *given[:2]), ("samples", "seed"), ("fail-above",), ("set",),
            ("policy",),
        ),
        "fit": Command(
            ("fit", *LQR),
            ("rows", "neighbours", "directions", "steps", "members", "elites", "hidden", "epochs",
             "patience", "seed"),
            ("weight", "seconds"), ("set", "loss", "network", "spectral"),
            ("data", "policy", "export"), "new.safetensors",
        ),
        "logs": Command(
            ("logs", "data.h5", "--policy", "policy.safetensors", "--task", *LQR, "--no-report"),
            ("horizon", "reach", "every", "seed"), ("noise-std", "discount"),
            ("set", "task"), ("model", "critic", "policy"), "new.h5",
        ),
        "remedies": Command(
            ("remedies", *own, *given),
            ("rows", "trials", "members", "hidden", "epochs", "horizon", "starts", "batch", "seed"),
            (), ("set", "remedies", "network"), ("data", "policy", "critic"), "new.h5",
        ),
        "train": Command(
            ("train", "svg", *own),
            ("seeds", "first-seed", "iterations", "horizons", "measure-every", "measure-starts",
             "members", "model-hidden", "fit-every", "fit-steps", "gradient-every",
             "gradient-starts", "evaluate-every", "checkpoint-every"),
            ("clip", "reward-scale"),
            ("set", "spectral", "device", "precision", "model"), (), "new.h5",
        ),
        "train asynchronously": Command(
            ("train", "mpg-v2", *own), ("learners", "actors", "queue"), (), ("ray",), (),
            "new.h5",
        ),
        "sweep": Command(("sweep", "runs.toml"), ("workers",), (), ("ray",)),
        "compare": Command(("compare", "run.h5", "run.h5"), output="new.html"),
        "choose": Command(
            ("choose", "run.h5"), ("batch", "iteration", "ramp"), (), ("estimator", "by"),
        ),
        "report": Command(("report", "run.h5")),
        "list": Command(("list",)),
        "audit": Command(("audit", "loss.py:sound"), ("discount", "seed")),
    }  # fmt: skip


def prepared(folder: Path) -> None:
    """The files that commands name, and such as nobody should name."""
    task = gradlab.tasks.linear_quadratic()
    policy, critic = nn.Linear(2, 1, bias=False).double(), QCritic(2, 1, (4,)).double()
    nn.init.constant_(policy.weight, -0.3)
    profile = gradlab.measure(task, policy, critic, horizon=2, starts=16, judges=4, rehearse=False)
    profile.save(folder / "run.h5")
    checkpoint.save(Policy(2, 1, (4,)), folder / "policy.safetensors")
    checkpoint.save(QCritic(2, 1, (4,)), folder / "critic.safetensors")
    s = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    never, episode = torch.zeros(64, dtype=torch.bool), torch.arange(64) // 8
    after = torch.where(((episode + 1) * 8 > torch.arange(64) + 1)[:, None], s.roll(-1, 0), s)
    rows = from_rows(s, s[:, :1], s[:, 0], after, terminated=never, episode=episode)
    rows.save(folder / "data.h5")
    (folder / "folder").mkdir()
    (folder / "folder.h5").mkdir()
    (folder / "empty.h5").touch()
    (folder / "empty.safetensors").touch()
    (folder / "own.py").write_text("def nothing(): pass\ndef fails(): raise ValueError('x\\ny')\n")
    (folder / "loss.py").write_text(LOSS)
    (folder / "runs.toml").write_text(RUNS)
    (folder / "zero.h5").symlink_to("/dev/zero")
    (folder / "loop.h5").symlink_to("loop.h5")
    for name in ("pipe.h5", "pipe.safetensors", "pipe.npz", "pipe.py"):
        os.mkfifo(folder / name)


FILES = (
    "folder", "folder.h5", "empty.h5", "empty.safetensors", "run.h5", "data.h5", "own.py",
    "own.py:nothing", "own.py:fails", "own.py:", "own.py:absent", "zero.h5", "loop.h5", "pipe.h5",
    "pipe.safetensors", "pipe.npz", "pipe.py:f", "/dev/null", "/dev/zero", "/dev/null:x.py",
    "absent.h5", "absent/absent.h5", "run.h5/run.h5", "minari:", "minari:x", "minari:../..",
    "prior", f"{'x' * 300}.h5", f"{'x' * 240}.h5", f"{'d/' * 3000}x.h5", f"{'ä' * 150}.h5",
)  # fmt: skip
OUTPUTS = (
    *FILES, "", ".", "..", "/", "no-suffix", "new.txt", ".h5", f"{'x' * 300}.html",
    f"{'x' * 300}.safetensors", "\udcff.h5", "a\0.h5", "/proc/new.h5", "/dev/full.h5",
)  # fmt: skip


def replaced(command: Command, option: str, value: str) -> tuple[str, ...]:
    """The command with one option that has another value."""
    words, name = list(command.words), f"--{option}"
    if name in words:
        at = words.index(name)
        del words[at : at + 2]
    return (*words, name, value)


def draws(generator: random.Random) -> Iterator[tuple[str, ...]]:
    """Command lines with one or two hostile options each, for ever."""
    known = commands()
    while True:
        command = known[generator.choice(sorted(known))]
        words = command.words
        for _ in range(generator.choice((1, 1, 2))):
            words = _spoiled(Command(words, *_options(command)), generator)
        yield words


def _options(command: Command) -> tuple[object, ...]:
    return command.whole, command.real, command.text, command.files, command.output


def _spoiled(command: Command, generator: random.Random) -> tuple[str, ...]:
    kinds = {
        "whole": (command.whole, WHOLE), "real": (command.real, REAL),
        "text": (command.text, TEXT), "files": (command.files, (*FILES, *TEXT)),
        "output": (("output",) if command.output else (), OUTPUTS),
        "word": ((), (*TEXT, *FILES)),
    }  # fmt: skip
    possible = [kind for kind, (options, _) in kinds.items() if options or kind == "word"]
    kind = generator.choice(possible)
    options, values = kinds[kind]
    if kind == "word":  # one of the words themselves
        at = generator.randrange(1, len(command.words) + 1)
        return (*command.words[:at], generator.choice(values), *command.words[at + 1 :])
    option = generator.choice(options)
    value = generator.choice(SET if option == "set" else values)
    return replaced(command, option, value)


def grid() -> Iterator[tuple[str, ...]]:
    """What must be refused whatever comes: by every command, for each option that it has."""
    seeds = (str(2**63), "-1", HUGE, "9" * 5000)
    devices = ("/dev/null", "/dev/zero", "zero.h5", "pipe.h5", "folder", "", f"{'x' * 300}.h5")
    sets = (
        f"A={HUGE}", f"A={'[' * 400}{']' * 400}", f"A={'[' * 100_000}", "discount=NaN",
        f"discount={HUGE}", 'A="\\ud800"', "=1", "no_such=1",
    )  # fmt: skip
    # What one function reads of all commands and options: each command has one, two or three of
    # them, all together all; what the parser itself refuses stands at its first option.
    unread, read, written = cycle(("9" * 5000, "1.5", "")), cycle(sets), cycle(devices)
    for command in commands().values():
        yield (*command.words, "\udcff")
        yield (*command.words, "a\0b")
        for option in command.whole:
            values = seeds if option in ("seed", "first-seed") else (HUGE,)
            yield from (replaced(command, option, each) for each in values)
        for option in command.real:
            yield from (replaced(command, option, each) for each in ("nan", "inf", "-inf"))
        yield from (replaced(command, option, next(unread)) for option in command.whole[:1])
        yield from (replaced(command, option, "") for option in command.real[:1])
        for option in command.files:
            # A folder may be where a dataset goes or comes from.
            given = [each for each in devices if each != "folder" or option != "export"]
            yield from (replaced(command, option, each) for each in given)
        if "set" in command.text:
            yield from (replaced(command, "set", each) for each in islice(read, 2))
        if command.output:
            yield from (replaced(command, "output", each) for each in islice(written, 3))
    for name in ("report", "choose", "compare", "sweep"):
        first = ("run.h5",) if name == "compare" else ()
        for each in (*devices, "absent.h5", "empty.h5", "folder.h5"):
            yield (name, *first, each)
    for option in ("starts", "horizon"):
        for name in ("measure", "jacobians", "remedies"):
            yield from (
                replaced(commands()[name], option, each) for each in ("-1", str(10**9), str(10**18))
            )
