"""Did a change of the code change a number? Tables and decisions of two versions, to the last bit.

    python -m benchmarks.unchanged write before     # in a checkout of the one version
    python -m benchmarks.unchanged write after      # in a checkout of the other
    python -m benchmarks.unchanged compare before after

Written are, as JSON with exact numbers:

    measured    four tasks, each measured from one seed: the table, and every array of the file
    trained     a run of training: every array of its file
    reports     every run below reports/: its table, and of its first screen the light, what is
                decided, and every number in its sentences; their prose may change

Only names that have not changed between versions are used: the commands, `gradlab.load`, and
`gradlab.reporting.kinds.screen_of`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import tyro

import gradlab
from gradlab.errors import InputError
from gradlab.reporting import kinds

NETWORKS = "reports/path-tracking/path_tracking"
MEASURED = {
    "path tracking": (
        "path_tracking", "--policy", f"{NETWORKS}.policy.safetensors", "--critic",
        f"{NETWORKS}.critic.safetensors", "--horizon", "8", "--starts", "32", "--attribute",
        "--consequence",
    ),
    "matched path tracking": (
        "path_tracking", "--policy", f"{NETWORKS}.policy.safetensors", "--critic",
        f"{NETWORKS}.critic.safetensors", "--horizon", "8", "--starts", "32", "--law", "start",
        "--truth", "matched", "--attribute",
    ),
    "double integrator": ("double_integrator", "--horizon", "10", "--starts", "32"),
    "linear quadratic": (
        "linear_quadratic", "--set", "A=[[0.9]]", "B=[[0.5]]", "Q=[[1.0]]", "R=[[0.1]]",
        "noise_covariance=[[0.01]]", "start_mean=[0.0]", "start_covariance=[[1.0]]",
        "discount=0.9", "prior=[[[0.8]],[[0.6]]]", "--horizon", "6", "--starts", "64",
    ),
    "inverted pendulum": (
        "inverted_pendulum", "--set", "engine=analytic", "--horizon", "8", "--starts", "32",
    ),
}  # fmt: skip
TRAINED = ("mpg-v2", "path_tracking", "--seeds", "2", "--iterations", "60")
NUMBER = re.compile(r"(?<![\w.])[−-]?\d+(?:[.,]\d+)*(?:e[−+-]?\d+)?")
SECONDS = re.compile(r"[\d.]+ s\b")  # what a run took is another number every time
# What a run says of the machine, the time and the commit that made it.
OWN = {"command", "commit", "environment", "wall_seconds", "run_id", "created", "config"}
JUDGED = ("--judges", "64")  # else as many as this machine affords


def write(folder: Path, reports: Path) -> None:
    """Everything of this version, a file each; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in _work(folder, reports):
        place = folder / f"{name.replace('/', '--').replace(' ', '-')}.json"
        if place.exists():
            continue
        print(name, flush=True)
        place.write_text(json.dumps(make(), indent=0, sort_keys=True))


def _work(folder: Path, reports: Path) -> Iterator[tuple[str, Any]]:
    for name, words in MEASURED.items():
        run = (folder / f"{name.replace(' ', '-')}.h5").resolve()
        yield f"measured {name}", lambda words=words, run=run: _measured(words, run)
    yield "trained", lambda: _trained((folder / "trained.h5").resolve())
    for path in sorted(reports.rglob("*.h5")):
        yield f"report {path.relative_to(reports)}", lambda path=path: _reported(path)


def _command(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "gradlab", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gradlab {' '.join(words)}: {done.stderr}")


def _measured(words: tuple[str, ...], run: Path) -> dict[str, Any]:
    judged = () if "matched" in words else JUDGED
    _command("measure", *words, *judged, "--seed", "0", "--no-report", "--overwrite", "--output",
             str(run))  # fmt: skip
    return {"table": _table(run), "arrays": _arrays(run), **_screen(run)}


def _trained(run: Path) -> dict[str, Any]:
    _command("train", *TRAINED, "--no-report", "--overwrite", "--output", str(run))
    return {"arrays": {k: v for k, v in _arrays(run).items() if "second" not in k}}


def _reported(path: Path) -> dict[str, Any]:
    try:
        return {"table": _table(path), **_screen(path)}
    except InputError as error:
        return {"refused": NUMBER.findall(str(error).replace(str(path), ""))}


def _table(path: Path) -> Any:
    """A digest of each column of the long table; None where the kind has none of its own."""
    try:
        run = gradlab.load(path)
    except InputError:
        return None
    table = run.table()
    return {"rows": len(table)} | {
        str(name): hashlib.sha256("\n".join(map(_exact, table[name])).encode()).hexdigest()
        for name in table.columns
    }


def _exact(value: Any) -> str:
    return float(value).hex() if isinstance(value, float) else str(value)


def _screen(path: Path) -> dict[str, Any]:
    screen = kinds.screen_of(path)
    return {
        "light": screen.light,
        "decided": [each.decided for each in screen.rest],
        "numbers": [NUMBER.findall(SECONDS.sub("", each.text)) for each in screen.rest],
    }


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
    """The number of differences, each printed."""
    names = sorted({each.name for folder in (one, other) for each in folder.glob("*.json")})
    differences = 0
    for name in names:
        pair = [folder / name for folder in (one, other)]
        if not all(each.exists() for each in pair):
            print(f"{name}: only in one of both")
            differences += 1
            continue
        first, second = (json.loads(each.read_text()) for each in pair)
        for key in sorted(first.keys() | second.keys()):
            if first.get(key) != second.get(key):
                print(f"{name}: {key} differs: {_where(first.get(key), second.get(key))}")
                differences += 1
    print(f"{len(names)} compared, {differences} differences")
    return differences


def _where(first: Any, second: Any) -> str:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [k for k in first.keys() | second.keys() if first.get(k) != second.get(k)]
        return f"{len(keys)} of {len(first)}, such as {sorted(keys)[:4]}"
    return f"{str(first)[:200]} | {str(second)[:200]}"


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
