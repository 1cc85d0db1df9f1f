"""Did a change of the code change a number? Every kind of run of two versions, side by side.

    python -m benchmarks.unchanged write before     # in a checkout of the one version
    python -m benchmarks.unchanged write after      # in a checkout of the other
    python -m benchmarks.unchanged compare before after --within 1e-10

A case is one run from one seed, small: a command of `unchanged.toml`, a function of
`FUNCTIONS`, or a run file below reports/. Of each are written, by name, the numbers and texts of
its JSON, its table, every array of its file, and what it decided (`decisions`): numbers as values
in CASE.npz, texts and single numbers in CASE.json. Sentences may change, and so may what time and
machine make.

Compared are floats within `within` = w, by default 0, each named array x of the one version and y
of the other with its own scale, since an entry that cancels is rounding of the largest:

    |xᵢ − yᵢ| ≤ w · (max(|xᵢ|, |yᵢ|) + s / 1000),      s = max of all finite |x|, |y|

NaN equals NaN and an infinity itself. A column of a table is an array for each quantity, since
quantities have units of their own; a number that stands alone has itself as scale. Whole numbers,
texts, decisions and shapes are compared exactly. What is missing is a difference unless
`removed.txt` has it, which names times, too; what only the later version has is none.

`write --reports` names one folder of networks and run files for both versions. `--only` names
cases, `*` stands for anything; a case that reads another's file needs it written before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.networks.policies import Gaussian
from gradlab.reporting import output
from gradlab.verdicts.advice import advise
from gradlab.verdicts.facts import facts

Array = np.ndarray[Any, Any]
Values = dict[str, Array]
Named = Iterator[tuple[str, Array]]
AT_ONCE = 2
MINE = f"{__file__}:"  # of this file: networks and tasks of one's own, see below
TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
OUTPUTS = {"fit": ".safetensors", "compare": ".html", "sweep": ""}
NONE = ("choose", "step")  # commands that write nothing
# What a run says of the machine, the time and the commit that made it, and sentences.
OWN = {
    "command", "commit", "environment", "wall_seconds", "run_id", "created", "config", "paths",
    "seconds", "elapsed", "versions", "machine", "steps_per_second", "schema_version",
    "recommendation", "sure", "text", "result", "meaning", "label", "reason", "networks", "how",
    "verdict", "decided", "lit", "folded",
}  # fmt: skip
SENTENCE = 60  # characters of the longest text that is a name


def decisions(path: Path) -> dict[str, Any]:
    """What the run at `path` decides and finds, and of a measurement what is advised."""
    run = gradlab.load(path)
    found: Any = {f"{each.code} {each.subject}": each.decision for each in run.findings}
    if run.kind == output.PROFILE:
        advice = advise(facts(run))
        found["advised"] = [*map(str, advice.cell or ("keep",)), str(advice.updates)]
    return found | {"light": run.recommendation.light}


# Networks and tasks of one's own, which commands read from this file.


def linear() -> gradlab.Task:
    """s' = 0.9 s + 0.5 a + w and a wrong prior."""
    return gradlab.tasks.linear_quadratic(
        [[0.9]], [[0.5]], [[1.0]], [[0.1]], [[0.01]], [0.0], [[1.0]], 0.9, ([[0.8]], [[0.6]])
    )


def _gains(*gains: float) -> nn.Linear:
    policy = nn.Linear(len(gains), 1, bias=False).double()
    policy.weight.data = torch.tensor([gains]).double()
    return policy


policy, noisy, feedback = _gains(-0.8), Gaussian(_gains(-0.8), 0.2), _gains(-0.8, -0.8)
before, after = _gains(-0.5, -0.5, -0.5), _gains(-0.6, -0.6, -0.6)
weak = _gains(0.1, 1.0, 0.1, 0.1)  # lets the pole fall


def exact(state: Tensor, action: Tensor) -> Tensor:
    """Q of `policy` on `linear`: P = 1 + 0.1 · 0.8² + 0.9 (0.9 − 0.5 · 0.8)² P."""
    P = 1.064 / (1 - 0.9 * 0.25)
    after = 0.9 * state + 0.5 * action
    return -(state**2 + 0.1 * action**2 + 0.9 * P * after**2)[:, 0]


def upright(state: Tensor, action: Tensor) -> Tensor:
    return -(30 * (state + 0.04 * state.roll(2, 1)) ** 2).sum(1) - action[:, 0] ** 2


class World(nn.Module):
    """A world model in a latent of 3, at random."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.dynamics, self.paid = nn.Linear(1, 3), nn.Linear(4, 3), nn.Linear(4, 1)
        self.critic, self.policy = nn.Linear(4, 1), Gaussian(_gains(-0.5, 0.3, -0.2), 0.2)

    def encode(self, seen: Tensor) -> Tensor:
        return self.encoder(seen).tanh()

    def step(self, z: Tensor, a: Tensor) -> Tensor:
        return self.dynamics(torch.cat([z, a], 1)).tanh()

    def reward(self, z: Tensor, a: Tensor) -> Tensor:
        return -self.paid(torch.cat([z, a], 1))[:, 0].square()

    def q(self, z: Tensor, a: Tensor) -> Tensor:
        return -self.critic(torch.cat([z, a], 1)).square()


# Cases that commands do not offer: each writes its run file.


def several_critics(path: Path) -> None:
    critics = [exact, lambda state, action: 1.2 * exact(state, action)]
    found = gradlab.measure(linear(), policy, critics, horizon=4, starts=64, truth="matched")
    found.save(path)


def world_model(path: Path) -> None:
    torch.manual_seed(0)
    task, policy, critic = gradlab.tasks.with_world_model(linear(), World())
    gradlab.measure(task, policy, critic, horizon=3, starts=32, judges=32).save(path)


def groups(path: Path) -> None:
    """Four starts share a group."""
    from gradlab.data.trajectories import Path as Paths

    states, none = linear().starts(64, torch.Generator().manual_seed(0)), torch.zeros(0)
    shared = torch.arange(64) // 4
    weight = 1 + torch.arange(64).double() % 3
    starts = Paths(states[None], none, none, none, none, none, weight / weight.mean(), shared)
    gradlab.measure(linear(), policy, exact, horizon=4, starts=starts).save(path)


def estimators(path: Path) -> None:
    """Estimators of one's own, with entropy."""
    task, tail = linear(), gradlab.Tail(0, exact, 0.9)
    pathwise = gradlab.Estimator(task.prior, task.prior, "all", tail, entropy=0.1)
    chosen = {"soft": pathwise, "soft first": replace(pathwise, actions="first")}
    gradlab.measure(task, noisy, None, chosen, horizon=3, starts=64, judges=64).save(path)


def causes(path: Path) -> pd.DataFrame:
    """What makes the error of "path tracking"."""
    return gradlab.attribute(gradlab.load(path.parent / "run-path-tracking.h5")).table()


class Critic(nn.Linear):
    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return super().forward(torch.cat([s, a], 1))


def probe(path: Path, **more: Any) -> None:
    """Around DDPG's updates of a small actor and critic, with their target declared."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    critic, target = Critic(3, 1), Critic(3, 1).requires_grad_(False)
    actor, rate = (torch.optim.Adam(each.parameters(), 1e-3) for each in (policy, critic))

    def loss_of(batch: dict[str, Tensor]) -> Tensor:
        value = target(batch["next_observation"], policy(batch["next_observation"])).detach()[:, 0]
        aim = batch["reward"] + 0.95 * (1 - batch["terminated"]) * value
        return (critic(batch["observation"], batch["action"])[:, 0] - aim).square().mean()

    probe = gradlab.Probe(policy, actor, log=path, every=10, **more)
    probe.networks(critic=critic, target=target, optimizers={"critic": rate})
    probe.losses(critic=loss_of, discount=0.95)
    for step in range(40):
        s, a = torch.randn(32, 2, generator=generator), torch.randn(32, 1, generator=generator)
        reward, after, ended = -(s**2).sum(1) - a[:, 0] ** 2, s + 0.1 * a, torch.zeros(32)
        batch = {"observation": s, "action": a, "reward": reward, "next_observation": after}
        batch["terminated"] = ended
        probe.look(batch)
        loss = loss_of(batch)
        rate.zero_grad()
        loss.backward()
        rate.step()
        actor.zero_grad()
        with probe(step):
            (-critic(s, policy(s)).mean()).backward()
        actor.step()
        for old, new in zip(target.parameters(), critic.parameters(), strict=True):
            old.data.lerp_(new.data, 0.05)
    probe.close()


def probe_on_a_task(path: Path) -> None:
    critic = Critic(3, 1)
    probe(path, task=gradlab.tasks.double_integrator(), critic=critic, critic_alone=True)


FUNCTIONS = (
    several_critics,
    world_model,
    groups,
    estimators,
    causes,
    probe,
    probe_on_a_task,
)


def _recorded() -> dict[str, Any]:
    """200 trajectories of 20 steps of a cart under `feedback` and noise, a row each."""
    random = np.random.default_rng(0)
    state, steps = random.normal(size=(200, 2)), []
    for _ in range(20):
        action = -0.8 * state.sum(1, keepdims=True) + 0.3 * random.normal(size=(200, 1))
        following = state + 0.1 * np.concatenate([state[:, 1:], action], 1)
        steps.append((state, action, -(state**2).sum(1) - 0.1 * action[:, 0] ** 2, following))
        state = following
    columns = [
        np.stack(rows, 1).reshape(4000, *rows[0].shape[1:]) for rows in zip(*steps, strict=True)
    ]
    named = dict(zip(("state", "action", "reward", "next_state"), columns, strict=True))
    return named | {"terminated": np.zeros(4000, bool), "episode": np.repeat(np.arange(200), 20)}


def cases(files: Path, reports: Path) -> dict[str, Any]:
    """Every case, and of what it is made: the words of a command, a function, a run file."""
    names = {"f": files, "r": reports, "mine": MINE}
    for name, words in TABLE["words"].items():
        names[name] = words.format_map(names)
    commands = {f"run {name}": words for name, words in TABLE["commands"].items()}
    for rows, words in TABLE["rows"].items():
        commands |= {f"train {row}": f"train {row} {words}" for row in rows.split()}
    return (
        {name: words.format_map(names) for name, words in commands.items()}
        | {f"run {each.__name__.replace('_', ' ')}": each for each in FUNCTIONS}
        | {f"report {each.relative_to(reports)}": each for each in sorted(reports.rglob("*.h5"))}
    )


def write(folder: Path, reports: Path, only: Sequence[str] = ("*",)) -> None:
    """Every case of this version; what is there is kept, what fails is named and left out."""
    files = folder.resolve() / "files"
    files.mkdir(parents=True, exist_ok=True)
    (files / "table.toml").write_text(TABLE["sweep"]["text"].replace("@", MINE))
    np.savez(files / "recorded.npz", **_recorded())
    os.environ["OMP_NUM_THREADS"] = "1"
    wanted = {
        name: what
        for name, what in cases(files, reports).items()
        if any(fnmatchcase(name, each) for each in only) and not _place(folder, name).exists()
    }
    later = {name for name, what in wanted.items() if what is causes or str(files) in str(what)}
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
        for wave in (wanted.keys() - later, later):
            done = {
                pool.submit(_written, _place(folder, name), wanted[name], files): name
                for name in wanted
                if name in wave
            }
            for each in as_completed(done):
                print(f"{done[each]}: {each.exception() or f'{each.result():.1f} s'}", flush=True)


def _place(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '--').replace(' ', '-')}.json"


def _written(place: Path, what: Any, files: Path) -> float:
    """Write one case; how many seconds it took."""
    begun = time.monotonic()
    values = dict(_made(place.stem, what, files))
    texts = {name: x.tolist() for name, x in values.items() if not x.ndim or x.dtype.kind == "U"}
    arrays = {name: x for name, x in values.items() if name not in texts}
    np.savez_compressed(place.with_suffix(".npz"), **arrays)
    place.write_text(json.dumps(texts, indent=0, sort_keys=True))
    return time.monotonic() - begun


def _made(stem: str, what: Any, files: Path) -> Named:
    command = what.split()[0] if isinstance(what, str) else ""
    path = files / f"{stem}{OUTPUTS.get(command, '.h5')}"
    path.unlink(missing_ok=True)
    if command:
        yield from _values(_run(command, what, path))
    elif isinstance(what, Path):
        path = what
    elif isinstance(table := what(path), pd.DataFrame):
        yield from _columns(table, "table")
    if not path.is_file() or command in OUTPUTS:
        return
    try:
        yield from _values(decisions(path), "decisions")
    except InputError:
        yield "decisions/refused", np.array(True)
        return
    if output.journal.kind(path) == output.PROFILE:
        yield from _columns(gradlab.load(path).table(), "table")
    if path is not what:
        yield from _arrays(path).items()


def _run(command: str, words: str, path: Path) -> Any:
    """One command's JSON."""
    given = [*words.split(), "--json"]
    if command not in NONE:
        given += ["--output", str(path)]
        given += [] if command in OUTPUTS else ["--no-report"]
    begin = [sys.executable, "-m", "gradlab"]
    done = subprocess.run([*begin, *given], capture_output=True, text=True)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"gradlab {' '.join(given)}: {done.stderr[-1000:]}")
    return json.loads(done.stdout)


def _values(value: Any, where: str = "json") -> Named:
    """Every number and name of a document by its place; a text may be a document, too."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in OWN:
                yield from _values(each, f"{where}/{key}")
    elif not isinstance(value, list):
        if not _sentence(value):
            yield where, np.asarray("none" if value is None else value)
    elif not any(map(_nested, value)):
        yield where, _array(value)
    elif all(isinstance(each, dict) and not any(map(_nested, each.values())) for each in value):
        yield from _columns(pd.DataFrame(value), where)
    else:
        for k, each in enumerate(value):
            yield from _values(each, f"{where}/{k}")


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and value.startswith("{"))


def _sentence(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or len(value) > SENTENCE)


def _columns(table: pd.DataFrame, where: str) -> Named:
    """Of each quantity, where a table has several."""
    parts = table.groupby("quantity") if "quantity" in table else [("", table)]
    for quantity, rows in parts:
        for name in rows.columns:
            if name not in OWN:
                yield f"{where}/{name} {quantity}".rstrip(), _array(rows[name])


def _array(values: Any) -> Array:
    """Numbers as they are, None as NaN; else names, without sentences."""
    values = list(values)
    if all(each is None or isinstance(each, int | float | np.number | np.bool_) for each in values):
        return np.array([np.nan if each is None else each for each in values])
    return np.array(["" if _sentence(str(each)) else str(each) for each in values])


def _arrays(path: Path) -> Values:
    """Every array of a run file, and attributes that are numbers or documents."""
    found: Values = {}

    def visit(name: str, node: Any) -> None:
        for key, value in node.attrs.items():
            if key not in OWN and (isinstance(value, int | float | np.number) or _nested(value)):
                found.update(_values(value, f"file/{name}@{key}"))
        if not isinstance(node, h5py.Dataset) or name.split("/")[-1] in OWN:
            return
        if h5py.check_string_dtype(node.dtype):
            found.update(_values(np.ravel(node.asstr()[()]).tolist(), f"file/{name}"))
        else:
            parts = {f".{field}": node[field] for field in node.dtype.names or ()}
            found.update({f"file/{name}{part}": x for part, x in (parts or {"": node[()]}).items()})

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def removed() -> list[str]:
    """Patterns "CASE: NAME" of `removed.txt`, of what is missing on purpose."""
    lines = Path(__file__).with_name("removed.txt").read_text().splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line and line[0] != "#"]


def compare(one: Path, other: Path, within: float = 0.0, gone: Sequence[str] = ()) -> int:
    """The number of differences, each printed.

    Args:
        gone: patterns "CASE: NAME" of what may be missing.
    """

    def allowed(name: str) -> bool:
        return any(fnmatchcase(name, each) for each in gone)

    differences, added, names = 0, 0, sorted(each.stem for each in one.glob("*.json"))
    for name in names:
        first, second = _read(one / name), _read(other / name)
        added += len(second.keys() - first.keys())
        if first and not second and not allowed(f"{name}: "):
            print(f"{name}: is missing")
            differences += 1
        for key in first if second else ():
            if OWN.intersection(key.replace("@", "/").split("/")) or allowed(f"≈ {name}: {key}"):
                continue
            told = _between(first[key], second.get(key), within)
            if told and not (key not in second and allowed(f"{name}: {key}")):
                print(f"{name}: {key} {told}")
                differences += 1
    print(f"{len(names)} cases compared, {differences} differences, {added} values added")
    return differences


def _read(stem: Path) -> Values:
    """A case; {} where there is none."""
    place = stem.with_name(f"{stem.name}.json")
    if not place.exists():
        return {}
    found = {name: np.asarray(value) for name, value in json.loads(place.read_text()).items()}
    arrays = place.with_suffix(".npz")
    return found | (dict(np.load(arrays)) if arrays.exists() else {})


def _between(x: Array, y: Array | None, within: float) -> str:
    """What differs between the values of one name; "" where nothing does."""
    if y is None:
        return "is missing"
    if x.shape != y.shape:
        return f"has shape {y.shape}, had {x.shape}"
    floats = x.dtype.kind == "f" and y.dtype.kind in "fiu"
    same = np.asarray(x == y)
    if not floats:
        pairs = [f"{a} → {b}" for a, b in zip(x[~same], y[~same], strict=True)]
        return f"differs in {len(pairs)} of {x.size}: {', '.join(pairs[:3])}" if pairs else ""
    x, y = x.astype(float), y.astype(float)
    size = np.maximum(abs(x), abs(y))
    scale = np.max(size, initial=0.0, where=np.isfinite(size))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = abs(x - y)
        same |= (np.isnan(x) & np.isnan(y)) | (
            apart <= within * (size + scale / 1000)
        ) & np.isfinite(size)
        most = np.nan_to_num(apart / size, nan=np.inf)[~same]
    most_of_all = f"by at most {most.max():.1e}" if most.size else ""
    return f"moves in {most.size} of {x.size} {most_of_all} of itself" if most.size else ""


def main(
    verb: tyro.conf.Positional[Literal["write", "compare"]],
    folders: tyro.conf.Positional[tuple[Path, ...]],
    within: float = 0.0,
    only: tuple[str, ...] = ("*",),
    reports: Path = Path("reports"),
) -> None:
    """
    Args:
        verb: write one folder, or compare two.
        folders: one to write, two to compare.
        within: how far floats may be apart, relatively.
        only: which cases are written; `*` stands for anything.
        reports: where given networks and runs are read.
    """
    if verb == "write" and len(folders) == 1:
        write(folders[0], reports.resolve(), only)
    elif verb == "compare" and len(folders) == 2:
        raise SystemExit(min(compare(*folders, within, removed()), 1))
    else:
        raise SystemExit("write takes one folder, compare takes two")


if __name__ == "__main__":
    tyro.cli(main)
