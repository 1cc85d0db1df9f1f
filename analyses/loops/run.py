"""One run of one loop, in a process of its own, as its user starts it.

    python -m analyses.loops.run FAULTS "reward's sign" Pendulum-v1 90 500 out.h5 [--bare]

writes out.json beside the log: seconds of the processor from before `import gradlab` to the end,
and a digest of all parameters, optimiser states and random states. A loop that dies dies here as
anywhere, uncaught. What a probe says is read from its log afterwards, as `gradlab report` has it.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analyses.loops import cases

LONGEST = 600.0  # seconds of one run, per 1,000 updates of it and one more
GROUPS: Mapping[str, Mapping[str, cases.Case]] = {
    "faults": cases.FAULTS, "unseen": cases.UNSEEN, "sound": cases.SOUND,
}  # fmt: skip


class Bare:
    """In the place of a probe: every line of it may stay, and none does anything."""

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __call__(self, step: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, env: Any) -> Any:
        return env

    def close(self, **named: Any) -> None:
        pass

    networks = batch = rollout = close


def child(case: cases.Case, env: str, seed: int, updates: int, log: Path, bare: bool) -> None:
    """The loop, with a probe or without."""
    import gymnasium
    import mujoco
    import numpy as np
    import torch

    from analyses.loops import worlds
    from analyses.third_party.outcome import digest

    assert gymnasium and mujoco and worlds  # the user has these without gradlab, too
    torch.set_num_threads(1)
    random.seed(seed)
    begun = time.process_time()
    if case.library:
        held = library(case, env, seed, updates, None if bare else log)
    else:
        text = case.text
        space: dict[str, Any] = {}
        if bare:
            space["gradlab"] = SimpleNamespace(Probe=Bare)
            space["squashed"] = space["gaussian"] = lambda actor: actor
            text = re.sub(r"^(import|from) gradlab.*\n", "", text, flags=re.MULTILINE)
        exec(compile(text, case.loop, "exec"), space)
        held = space["train"](env, seed, updates, str(log))
    seconds = time.process_time() - begun
    networks, optimizers = ([each.state_dict() for each in x] for x in held)
    left = digest(networks, optimizers, torch.get_rng_state(), np.random.get_state()[1:3])
    left += digest(random.getstate())
    log.with_suffix(".json").write_text(json.dumps({"seconds": seconds, "digest": left}))


def library(case: cases.Case, env: str, seed: int, updates: int, log: Path | None) -> Any:
    """Stable-Baselines3's loop on its defaults, but for when it begins and how much it keeps."""
    import stable_baselines3

    make = getattr(stable_baselines3, case.loop)
    off = {} if case.loop == "PPO" else {"learning_starts": 400, "buffer_size": 50_000}
    model = make("MlpPolicy", env, seed=seed, device="cpu", **off)
    callback = None
    if log is not None:
        from gradlab.integrations.stable_baselines3 import ProbeCallback

        callback = ProbeCallback(log=str(log))
    each = {"PPO": 6.4, "TD3": 2.0, "SAC": 1.0}[case.loop]  # steps of an update of the policy
    model.learn(int(off.get("learning_starts", 0) + each * updates), callback=callback)
    critic = [] if case.loop == "PPO" else [model.critic]
    optimizers = [x.optimizer for x in (model.policy, getattr(model, "actor", None), *critic)
                  if hasattr(x, "optimizer")]  # fmt: skip
    return [model.policy], optimizers


def run(
    group: str, name: str, env: str, seed: int, updates: int, folder: Path, bare: bool = False
) -> dict[str, Any]:
    """One run in a process of its own, and what became of it."""
    log = folder / f"{group}-{name}-{env}-{seed}{'-bare' if bare else ''}.h5".replace("/", " ")
    for old in (log, log.with_name(f"{log.name}.journal"), log.with_suffix(".json")):
        old.unlink(missing_ok=True)
    given = [group, name, env, str(seed), str(updates), str(log), *["--bare"] * bare]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore::UserWarning:torch", "-m", "analyses.loops.run", *given],
            capture_output=True, text=True, timeout=LONGEST * (1 + updates / 1000),
        )  # fmt: skip
        said, code = done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        said, code = f"it took more than {late.timeout:.0f} s", -1
    row: dict[str, Any] = {
        "group": group, "case": name, "env": env, "seed": seed, "asked": updates, "bare": bare,
        "wall": time.monotonic() - begun,
        "error": said.strip().splitlines()[-1][:300] if code else "",
    }  # fmt: skip
    if (left := log.with_suffix(".json")).exists():
        row |= json.loads(left.read_text())
    return row if bare else row | told(log, row["error"])


def told(log: Path, error: str) -> dict[str, Any]:
    """What a reader sees: the first screen of the log, alarms, checks at fault, the cost.

    A refusal of gradlab's own is all that is seen where it comes before the first update.
    """
    from gradlab.reporting.kinds import screen_of
    from gradlab.runs.probe.results import load

    refused = re.search(r"InputError: (.*)", error)
    if refused or not (log.exists() or log.with_name(f"{log.name}.journal").exists()):
        text = refused.group(1) if refused else ""
        return {"headline": text, "light": "none" if refused else "", "alarms": {}, "faults": []}
    screen, run = screen_of(log), load(log)
    alarms: dict[str, int] = {}
    for kind, update in zip(run.alarms.get("alarm", ()), run.alarms.get("step", ()), strict=True):
        alarms.setdefault(str(kind), int(update))
    states = zip(run.checks.get("check", ()), run.checks.get("state", ()), strict=True)
    return {
        "headline": screen.headline, "light": screen.light, "sure": screen.sure,
        "notice": screen.notice, "updates": int(run.updates), "spent": float(run.spent),
        "alarms": alarms, "faults": [str(name) for name, state in states if str(state) == "fault"],
    }  # fmt: skip


if __name__ == "__main__":
    group, name, env, seed, updates, log, *bare = sys.argv[1:]
    child(GROUPS[group][name], env, int(seed), int(updates), Path(log), bool(bare))
