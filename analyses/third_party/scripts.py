"""CleanRL's scripts, from the folder of a checkout: their text, with the user's lines put in.

Nothing of their code is kept here but the names of variables. What the scripts were written for,
Gymnasium 0.29, is brought to the version installed, with and without the probe alike: vector
environments reset in the step that ends an episode, observations before the reset are "final_obs",
and printing of returns is left out. The user's lines are three: import, the probe, and the marked
backward pass.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from analyses.third_party.outcome import Ear, Outcome, heard

OFF_POLICY = (
    "probe = gradlab.Probe(actor, actor_optimizer, critic=qf1, critic_optimizer=q_optimizer"
)
ON_POLICY = (
    "probe = gradlab.Probe(agent.actor_mean, optimizer, critic=agent.critic, "
    "critic_optimizer=optimizer"
)
# Behind which assignment the probe is made, how, and which backward pass is marked.
LINES: Mapping[str, tuple[str, str, str]] = {
    "td3": ("actor_optimizer", OFF_POLICY, "actor_loss.backward()"),
    "ddpg": ("actor_optimizer", OFF_POLICY, "actor_loss.backward()"),
    "sac": ("actor_optimizer", OFF_POLICY, "actor_loss.backward()"),
    "ppo": ("optimizer", ON_POLICY, "loss.backward()"),
}
STARTS, BUFFER = 300, 20_000
LENGTH = {"td3": 1000, "ddpg": 1000, "sac": 500, "ppo": 4096}  # 500 to 640 updates of the policy
PARTS = ("actor", "qf1", "qf2", "target_actor", "qf1_target", "qf2_target", "agent")
OPTIMIZERS = ("actor_optimizer", "q_optimizer", "a_optimizer", "optimizer")


def text_of(folder: Path, name: str) -> str:
    """The script, ready for the Gymnasium that is installed."""
    text = (folder / f"{name}_continuous_action.py").read_text()
    text = text.replace('infos["final_observation"]', 'infos["final_obs"]')
    text = text.replace('if "final_info" in infos', 'if "final_info" in ()')
    mode = ", autoreset_mode=gym.vector.AutoresetMode.SAME_STEP"
    text = re.sub(r"(SyncVectorEnv\((?:.|\n)*?\])(\s*\))", rf"\1{mode}\2", text, count=1)
    return re.sub(
        r"(TransformObservation\(.*)\)$", r"\1, env.observation_space)", text, flags=re.MULTILINE
    )


def with_probe(text: str, name: str, more: str = ', log="run.h5"') -> str:
    """The same with the user's lines.

    Args:
        more: arguments of the probe.
    """
    behind, probe, backward = LINES[name]
    text = put_behind(text, rf"{behind} = ", "import gradlab", f"{probe}{more})")
    marked = rf"\1with probe(global_step): {backward}"
    return changed(text, rf"(\n +){re.escape(backward)}", marked)


def lines_of(name: str) -> list[str]:
    """What a user writes, a line each."""
    _, probe, backward = LINES[name]
    return ["import gradlab", f'{probe}, log="run.h5")', f"with probe(global_step): {backward}"]


def put_behind(text: str, statement: str, *lines: str) -> str:
    """Lines behind the first one that begins so, at its depth."""
    found = re.search(rf"^( *){statement}.*\n", text, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"the script has no line that begins with {statement}")
    put = "".join(f"{found[1]}{line}\n" for line in lines)
    return text[: found.end()] + put + text[found.end() :]


def put_before(text: str, statement: str, *lines: str) -> str:
    """Lines before the first one that begins so, at its depth."""
    found = re.search(rf"^( *){statement}", text, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"the script has no line that begins with {statement}")
    put = "".join(f"{found[1]}{line}\n" for line in lines)
    return text[: found.start()] + put + text[found.start() :]


def changed(text: str, pattern: str, new: str) -> str:
    """One place of the text, which must have it."""
    found, count = re.subn(pattern, new, text, count=1, flags=re.MULTILINE)
    if not count:
        raise ValueError(f"the script has nothing like {pattern}")
    return found


def run(
    text: str, task: str, seed: int, steps: int, probed: Mapping[str, Any] | None,
    folder: Path | None = None, warm: bool = True,
) -> Outcome:  # fmt: skip
    """The text as a program.

    Args:
        probed: arguments of the probe that the text makes with `**options`; None: it makes none.
        folder: of the checkout, from which the script imports; warm: it takes random actions first.
    """
    ear = Ear()
    given = {} if probed is None else {"options": {"log": ear, **probed}}
    command = ["--env-id", task, "--seed", str(seed), "--total-timesteps", str(steps)]
    if warm:
        command += ["--learning-starts", str(STARTS), "--buffer-size", str(BUFFER)]
    held, error = {}, ""
    with _elsewhere(text, command, folder) as script:
        try:
            held = runpy.run_path(script, init_globals=given, run_name="__main__")
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    left: list[Any] = [held[name].state_dict() for name in PARTS if name in held]
    left += [held[name].state_dict()["state"] for name in OPTIMIZERS if name in held]
    return heard(held.get("probe"), ear, left, error)


@contextlib.contextmanager
def _elsewhere(text: str, command: list[str], folder: Path | None) -> Iterator[str]:
    """In a folder of its own, silent; arguments, path and torch's settings are put back."""
    before, argv, path = os.getcwd(), sys.argv, list(sys.path)
    deterministic = torch.backends.cudnn.deterministic
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "script.py"
        script.write_text(text)
        sys.argv = [str(script), *command]
        sys.path[:0] = [] if folder is None else [str(folder)]
        os.chdir(place)
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield str(script)
        finally:
            os.chdir(before)
            sys.argv, sys.path[:] = argv, path
            torch.backends.cudnn.deterministic = deterministic
