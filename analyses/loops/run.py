"""One run of one loop, in a process of its own, as its user starts it.

    python -m analyses.loops.run GROUP CASE ENV SEED UPDATES OUT.h5 [--bare]

writes OUT.json beside the log: seconds of the processor, imports included, and a digest of all
parameters and optimiser states. A loop that dies dies here as anywhere, uncaught. What a probe says
is read from its log afterwards, as `gradlab report` has it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analyses.loops.cases import GROUPS, Case

LONGEST = 600.0  # seconds of one run, per 1,000 updates of it and one more
STEPS = {"PPO": 6.4, "TD3": 2.0, "SAC": 1.0}  # of the environment for an update of the policy
STARTS = {"learning_starts": 400, "buffer_size": 50_000}


class Bare:
    """In the place of a probe: every line of it may stay, and none does anything."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, step: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, env: Any, **_: Any) -> Any:
        return env

    def close(self, *_: Any, **__: Any) -> None:
        pass

    networks = losses = look = close


def child(case: Case, env: str, seed: int, updates: int, log: Path, bare: bool) -> None:
    """The loop, with a probe or without."""
    import mujoco
    import torch

    from analyses.loops import worlds

    assert mujoco and worlds  # the user has these without gradlab, too
    torch.set_num_threads(1)
    if case.library:
        held = library(case.loop, env, seed, updates, None if bare else log)
    else:
        space: dict[str, Any] = {"gradlab": SimpleNamespace(Probe=Bare)} if bare else {}
        text = case.text.replace("import gradlab\n", "") if bare else case.text
        exec(compile(text, case.loop, "exec"), space)
        held = space["train"](env, seed, updates, str(log))
    networks, optimizers = held
    states = [each.state_dict() for each in (*networks, *optimizers)]
    left = hashlib.sha256(b"".join(parts(states))).hexdigest()[:16]
    log.with_suffix(".json").write_text(
        json.dumps({"seconds": time.process_time(), "digest": left})
    )


def parts(state: Any) -> Iterator[bytes]:
    """All that a state holds, in order, as bytes."""
    if isinstance(state, Mapping):
        state = [*state.items()]
    if isinstance(state, list | tuple):
        for each in state:
            yield from parts(each)
    else:
        yield state.detach().numpy().tobytes() if hasattr(state, "detach") else repr(state).encode()


def library(kind: str, env: str, seed: int, updates: int, log: Path | None) -> Any:
    """Stable-Baselines3's loop on its defaults, but for when it begins and how much it keeps."""
    import stable_baselines3

    starts: dict[str, Any] = {} if kind == "PPO" else STARTS
    make = getattr(stable_baselines3, kind)
    model = make("MlpPolicy", env, seed=seed, device="cpu", **starts)
    callback = None
    if log is not None:
        from gradlab.integrations.stable_baselines3 import ProbeCallback

        callback = ProbeCallback(log=str(log))
    model.learn(int(starts.get("learning_starts", 0) + STEPS[kind] * updates), callback=callback)
    parts = (model.policy, getattr(model, "actor", None), getattr(model, "critic", None))
    optimizers = [x.optimizer for x in parts if getattr(x, "optimizer", None) is not None]
    return [model.policy], optimizers


def run(
    group: str, name: str, env: str, seed: int, probed: bool, updates: int, folder: Path
) -> dict[str, Any]:
    """One run in a process of its own, and what became of it."""
    table = group if group in GROUPS else "sound"
    stem = "-".join((group, name, env, str(seed), "probed" if probed else "bare"))
    log = folder / f"{stem}.h5".replace("/", " ")
    for old in (log, log.with_name(f"{log.name}.journal"), log.with_suffix(".json")):
        old.unlink(missing_ok=True)
    given = [table, name, env, str(seed), str(updates), str(log), *["--bare"] * (not probed)]
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "analyses.loops.run", *given],
            capture_output=True, text=True, timeout=LONGEST * (1 + updates / 1000),
        )  # fmt: skip
        said, code = done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        said, code = f"it took more than {late.timeout:.0f} s", -1
    # A probe that is left open says its last words after the loop's.
    lines = [line for line in said.splitlines() if line and not line.startswith("gradlab probe")]
    error = (lines or [f"code {code}"])[-1][:300] if code else ""
    row: dict[str, Any] = dict(
        group=group, case=name, env=env, seed=seed, probed=probed, asked=updates, error=error
    )
    if (left := log.with_suffix(".json")).exists():
        row |= json.loads(left.read_text())
    return row | told(log, error) if probed else row


def told(log: Path, error: str) -> dict[str, Any]:
    """What a reader sees: the first line and the light, all failures and the cost.

    A refusal of gradlab's own is all that is seen where it comes before the first update.
    """
    import gradlab
    from gradlab.verdicts.probe.screen import screen

    if not (log.exists() or log.with_name(f"{log.name}.journal").exists()):
        refused = re.search(r"InputError: (.*)", error)
        line = refused.group(1) if refused else ""
        return {"line": line, "light": "none" if line else "", "failed": {}, "updates": 0}
    run: Any = gradlab.load(log)
    shown = screen(run)
    failed = {each.code: each.since for each in run.reported if each.finding.decision == "fail"}
    count = int(run.vitals["update"][-1]) if len(run.vitals.get("update", ())) else 0
    return {
        "line": shown.field("finding"), "light": shown.light, "failed": failed,
        "updates": count, "spent": run.spent if run.spent == run.spent else 0.0,
    }  # fmt: skip


if __name__ == "__main__":
    group, name, env, seed, updates, log, *bare = sys.argv[1:]
    child(GROUPS[group][name], env, int(seed), int(updates), Path(log), bool(bare))
