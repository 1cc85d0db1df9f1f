"""Did a change of the code change a number? Every kind of run of two versions, to the last bit.

    python -m benchmarks.unchanged write before     # in a checkout of the one version
    python -m benchmarks.unchanged write after      # in a checkout of the other
    python -m benchmarks.unchanged compare before after

Written are, as JSON with exact numbers:

    runs        every command below, from one seed: the numbers of its JSON, what it decided, and
                where it writes a run file the table and every array of it
    probe       a probe around a loop of one's own: the same of its log
    reports     every run below reports/: its table, and of its first screen light and decisions

Sentences may change, and so may what time and machine make. A column or a field that only the
later version has is printed and is no difference.

Only names that have not changed between versions are used: commands and their options,
`gradlab.load`, `gradlab.Probe`, and `gradlab.reporting.kinds.screen_of` in `_screen`.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
import tyro
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.reporting import kinds

NETWORKS = "reports/path-tracking/path_tracking"
POLICY, CRITIC = f"{NETWORKS}.policy.safetensors", f"{NETWORKS}.critic.safetensors"
GIVEN = f"--policy {POLICY} --critic {CRITIC}"
LINEAR = (
    "linear_quadratic --set A=[[0.9]] B=[[0.5]] Q=[[1.0]] R=[[0.1]] noise_covariance=[[0.01]] "
    "start_mean=[0.0] start_covariance=[[1.0]] discount=0.9 prior=[[[0.8]],[[0.6]]]"
)
FEW = "--horizon 8 --starts 32 --judges 64"  # else as many judges as this machine affords
# What each command is given beside its output, in this order; {f} is the folder of what is written.
COMMANDS = {
    "path tracking": f"measure path_tracking {GIVEN} {FEW} --attribute",
    "matched path tracking": f"measure path_tracking {GIVEN} --horizon 8 --starts 32 --law start "
    "--truth matched --attribute",
    "double integrator": "measure double_integrator --horizon 10 --starts 32 --judges 64",
    "linear quadratic": f"measure {LINEAR} --horizon 6 --starts 64 --judges 64",
    "other starts": f"measure double_integrator --policy {{f}}/mine.py:policy {FEW} --seed 1",
    "fewer starts": "measure double_integrator --policy {f}/mine.py:policy --horizon 8 "
    "--starts 16 --judges 64",
    "inverted pendulum": f"measure inverted_pendulum --set engine=analytic {FEW}",
    "hopper": "measure Hopper-v5 --horizon 2 --starts 8 --judges 8 --no-rehearsal",
    "attribute": "attribute {f}/double-integrator.h5",
    "choose": "choose {f}/path-tracking.h5",
    "compare": "compare {f}/other-starts.h5 {f}/fewer-starts.h5",
    "fit": "fit path_tracking --rows 600 --members 2 --hidden 16 --epochs 3",
    "fit dd": "fit pendulum --rows 400 --members 1 --hidden 16 --epochs 2 --loss dd --two-model",
    "jacobians": f"jacobians path_tracking --model {{f}}/fit.safetensors --policy {POLICY} "
    "--horizon 6 --starts 16",
    "logs": "logs {f}/recorded.npz --policy {f}/mine.py:policy --noise-std 0.3 --model prior "
    "--task double_integrator --horizon 4 --reach 20",
    "remedies": f"remedies path_tracking {GIVEN} --rows 300 --remedies spectral dd --trials 2 "
    "--hidden 16 --epochs 2 --horizon 3 --starts 16",
    "certify": "certify inverted_pendulum --samples 64",
    "race": f"race path_tracking {GIVEN} --updates 6 --refit 3 --batch 16 --starts 8 --horizon 5",
    "step": "step {f}/mine.py:before {f}/mine.py:after --env Pendulum-v1 --at-most 8",
    "mpg-v2": "train mpg-v2 path_tracking --seeds 2 --iterations 60",
    "sac": "train sac pendulum --iterations 60",
    "shac": "train shac pendulum --iterations 6",
    "maac, model learnt": "train maac pendulum --iterations 60",
    "sweep": "sweep {f}/table.toml --workers 1",
}  # fmt: skip
SWEPT = """command = "measure"
[settings]
task = "double_integrator"
horizon = 4
judges = 64
[grid]
starts = [16, 32]
"""
MINE = """import torch

def feedback(states, gain):
    policy = torch.nn.Linear(states, 1, bias=False).double()
    torch.nn.init.constant_(policy.weight, gain)
    return policy

def policy():
    return feedback(2, -0.8)

def before():
    return feedback(3, -0.5)

def after():
    return feedback(3, -0.6)
"""
OUTPUTS = {"fit": ".safetensors", "compare": ".html", "sweep": "", "certify": ".json"}
NONE = ("attribute", "choose", "step")  # commands that write nothing
# What a run says of the machine, the time and the commit that made it, and prose.
OWN = {
    "command", "commit", "environment", "wall_seconds", "run_id", "created", "config", "paths",
    "seconds", "elapsed", "versions", "machine", "steps_per_second",
}  # fmt: skip
# A clock that stands still, so that a probe's budget is never spent.
STILL = (
    "import runpy, sys, time; time.perf_counter = lambda: 0.0; "
    "runpy.run_module('gradlab', run_name='__main__')"
)


def write(folder: Path, reports: Path) -> None:
    """Everything of this version, a file each; what is there is kept."""
    files = folder.resolve() / "files"
    files.mkdir(parents=True, exist_ok=True)
    (files / "table.toml").write_text(SWEPT)
    (files / "mine.py").write_text(MINE)
    np.savez(files / "recorded.npz", **_recorded())
    for name, make in _work(files, reports):
        place = folder / f"{name.replace('/', '--').replace(' ', '-')}.json"
        if place.exists():
            continue
        begun = time.monotonic()
        place.write_text(json.dumps(make(), indent=0, sort_keys=True))
        print(f"{name} ({time.monotonic() - begun:.1f} s)", flush=True)


def _work(folder: Path, reports: Path) -> Iterator[tuple[str, Any]]:
    for name, words in COMMANDS.items():
        yield f"run {name}", lambda name=name, words=words: _run(name, words, folder)
    yield "run probe", lambda: _probed(folder / "probe.h5")
    for path in sorted(reports.rglob("*.h5")):
        yield f"report {path.relative_to(reports)}", lambda path=path: _reported(path)


def _recorded() -> dict[str, Any]:
    """200 trajectories of 20 steps of a cart under `MINE` and noise."""
    random = np.random.default_rng(0)
    state = random.normal(size=(200, 2))
    columns: dict[str, list[Any]] = {k: [] for k in ("state", "action", "reward", "next_state")}
    for _ in range(20):
        action = -0.8 * state.sum(1, keepdims=True) + 0.3 * random.normal(size=(200, 1))
        following = state + 0.1 * np.concatenate([state[:, 1:], action], 1)
        reward = -(state**2).sum(1) - 0.1 * action[:, 0] ** 2
        for rows, each in zip(columns.values(), (state, action, reward, following), strict=True):
            rows.append(each)
        state = following
    stacked = {name: np.stack(rows, axis=1) for name, rows in columns.items()}
    flat = {name: rows.reshape(-1, *rows.shape[2:]) for name, rows in stacked.items()}
    return flat | {"terminated": np.zeros(4000, bool), "episode": np.repeat(np.arange(200), 20)}


def _run(name: str, words: str, folder: Path) -> dict[str, Any]:
    """One command's JSON, and its file."""
    command = words.split()[0]
    path = folder / f"{name.replace(' ', '-').replace(',', '')}{OUTPUTS.get(command, '.h5')}"
    given = [*words.format(f=folder).split(), "--json"]
    if command not in NONE:
        given += ["--output", str(path)]
    if command not in (*NONE, "compare", "certify", "sweep"):  # replace nothing
        given += ["--overwrite"]
    if command not in (*NONE, *OUTPUTS):
        given += ["--no-report"]
    start = ["-c", STILL] if "probe" in name else ["-m", "gradlab"]
    done = subprocess.run([sys.executable, *start, *given], capture_output=True, text=True)
    if not done.stdout.startswith("{"):
        raise SystemExit(f"gradlab {' '.join(given)}: {done.stderr}")
    found = {"json": dict(_numbers(json.loads(done.stdout)))}
    if command not in (*NONE, *OUTPUTS):
        found |= {"table": _table(path), "arrays": _arrays(path), **_screen(path)}
    return found


def _probed(path: Path) -> dict[str, Any]:
    """A probe around updates of a small actor and critic."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    policy, critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), nn.Linear(4, 1)
    actor = torch.optim.Adam(policy.parameters(), 1e-3)
    rate = torch.optim.Adam(critic.parameters(), 1e-3)
    probe = gradlab.Probe(policy, actor, log=path, overhead_budget=1.0, clock=lambda: 0.0)
    for _ in range(120):
        s, a = torch.randn(32, 3, generator=generator), torch.randn(32, 1, generator=generator)
        loss = (critic(torch.cat([s, a], 1)) + (s**2).sum(1, keepdim=True) + a**2).square().mean()
        rate.zero_grad()
        loss.backward()
        rate.step()
        actor.zero_grad()
        (-critic(torch.cat([s, policy(s)], 1)).mean()).backward()
        actor.step()
    probe.close()
    return {"table": _table(path), "arrays": _arrays(path), **_screen(path)}


def _reported(path: Path) -> dict[str, Any]:
    try:
        return {"table": _table(path), **_screen(path)}
    except InputError:
        return {"refused": True}


def _numbers(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every number and name of a JSON document by its place; no sentences."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            if key not in OWN:
                yield from _numbers(each, f"{where}/{key}")
    elif not isinstance(value, str) or not (" " in value or "/" in value):
        yield where, _exact(value)


def _table(path: Path) -> Any:
    """A digest of each column of the long table; None where the kind has none of its own."""
    try:
        table = gradlab.load(path).table()
    except InputError:
        return None
    return {"rows": len(table)} | {
        str(name): hashlib.sha256("\n".join(map(_exact, table[name])).encode()).hexdigest()
        for name in table.columns
        if name not in OWN
    }


def _exact(value: Any) -> str:
    return float(value).hex() if isinstance(value, float) else str(value)


def _screen(path: Path) -> dict[str, Any]:
    screen = kinds.screen_of(path)
    return {"light": screen.light, "decided": [each.decided for each in screen.rest]}


def _arrays(path: Path) -> dict[str, str]:
    """A digest of every array of a file, with its shape; attributes that are numbers."""
    found: dict[str, str] = {}

    def visit(name: str, node: Any) -> None:
        for key, value in node.attrs.items():
            if isinstance(value, int | float | np.number) and key not in OWN:
                number = float(value)
                found[f"{name}@{key}"] = "nan" if math.isnan(number) else number.hex()
        if isinstance(node, h5py.Dataset):
            values = node[()]
            content = (
                values.tobytes() if values.dtype.kind != "O" else repr(values.tolist()).encode()
            )
            found[name] = f"{node.shape} {hashlib.sha256(content).hexdigest()}"

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def compare(one: Path, other: Path) -> int:
    """The number of differences, each printed; what only the other has is printed, too."""
    names = sorted({each.name for folder in (one, other) for each in folder.glob("*.json")})
    differences = 0
    for name in names:
        pair = [folder / name for folder in (one, other)]
        if not all(each.exists() for each in pair):
            print(f"{name}: only in {one if pair[0].exists() else other}")
            differences += 1
            continue
        first, second = (json.loads(each.read_text()) for each in pair)
        for key in sorted(first.keys() | second.keys()):
            moved, added = _between(first.get(key), second.get(key))
            if added:
                print(f"{name}: {key} added: {added[:4]}")
            if moved:
                print(f"{name}: {key} differs: {len(moved)}, such as {moved[:4]}")
                differences += 1
    print(f"{len(names)} compared, {differences} differences")
    return differences


def _between(first: Any, second: Any) -> tuple[list[str], list[str]]:
    """What moved or went, and what was added."""
    if isinstance(first, dict) and isinstance(second, dict):
        moved = [key for key in first if first[key] != second.get(key)]
        return sorted(moved), sorted(second.keys() - first.keys())
    if first is None and second is not None:
        return [], [str(second)[:80]]
    return ([] if first == second else [f"{str(first)[:100]} | {str(second)[:100]}"]), []


def main(
    verb: tyro.conf.Positional[Literal["write", "compare"]],
    folders: tyro.conf.Positional[tuple[Path, ...]],
    reports: Path = Path("reports"),
) -> None:
    """
    Args:
        verb: write one folder, or compare two.
        folders: one to write, two to compare.
        reports: where the runs are that are read.
    """
    if verb == "write" and len(folders) == 1:
        write(folders[0], reports)
    elif verb == "compare" and len(folders) == 2:
        raise SystemExit(min(compare(*folders), 1))
    else:
        raise SystemExit("write takes one folder, compare takes two")


if __name__ == "__main__":
    tyro.cli(main)
