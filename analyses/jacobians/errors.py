"""How exact are the Jacobians of MuJoCo's tasks, how fast do they grow, and how wrong are priors?

    python -m analyses.jacobians [--small] [--output reports/jacobians]

Six Gymnasium tasks under a random policy and under a controller of the initial posture: the
certificate of every block, the share of masked steps, and Lyapunov exponents of the chained
Jacobians. Then the papers' prior models of the inverted pendulum and of path tracking against
their simulators, by the command line as a user would.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from analyses.jacobians import page as jacobian_claims
from analyses.jacobians import robots
from gradlab import cli
from gradlab.data.noise import stream
from gradlab.provenance import environment
from gradlab.tasks import task_from_name
from gradlab.tools.jacobians.compute import compare_jacobians
from gradlab.tools.jacobians.page import verdict
from gradlab.tools.jacobians.result import JacobianRun, load

FOLDER = Path("reports/jacobians")
ENVIRONMENTS = (
    "InvertedPendulum-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "HalfCheetah-v5",
    "Ant-v5",
    "Humanoid-v5",
)
PRIORS = {"inverted-pendulum": "inverted_pendulum", "path-tracking": "path_tracking"}
STARTS = 32
STEPS = 100
KEPT = ("certificate", "exponent", "horizon")
README = """# Jacobians of whole environment steps

Made by `{command}` at {commit}. Intervals are 95% over starts.

## Simulators

{starts} starts of Gymnasium's reset law, {steps} steps; exponents per environment step over the
second half of them, where steps count on after termination. *Certified to*: the estimated relative
error of the worst block, 95th percentile of the samples. *Masked*: steps whose random-direction
test failed at ε and down to ε/1000, where a contact or a limit switches inside the stencil.
The posture controller is u = kp (q₀ − q) − kd q̇ per actuated joint, clipped to the control limits
(gains: `made.json`).

{simulators}

Every number: `numbers.csv`.

## Prior models

{priors}
"""


def main(small: bool = False, output: Path = FOLDER) -> None:
    """Certify, compare and freeze.

    Args:
        small: few starts and steps of two tasks, to see that it runs.
        output: folder of the outcome.
    """
    output.mkdir(parents=True, exist_ok=True)
    names = ENVIRONMENTS[:2] if small else ENVIRONMENTS
    starts, steps = (8, 6) if small else (STARTS, STEPS)
    rows, tables, gains = [], [], {}
    for name in names:
        task = task_from_name(name, {})
        controller, gains[name] = robots.posture(task.simulator)
        for kind, policy in (("random", robots.random(task.simulator)), ("posture", controller)):
            # The simulator alone along the policy's rollout.
            run = compare_jacobians(
                task.simulator,
                None,
                task.starts(starts, stream(0, "starts")),
                policy,
                horizon=steps,
                discount=task.discount,
                state_names=task.state_names,
                action_names=task.action_names,
            )
            rows.append(summary(name, kind, run))
            print(rows[-1], flush=True)
            kept = run.table()[lambda table: table["section"].isin(KEPT)]
            tables.append(kept.assign(task=name, policy=kind))
    command = "python -m analyses.jacobians"
    made = {
        "command": command,
        "environment": environment(),
        "gains": {name: asdict(each) for name, each in gains.items()},
    }
    (output / "made.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    numbers = pd.concat(tables).dropna(axis=1, how="all")
    numbers.to_csv(output / "numbers.csv", index=False, float_format="%.6g")
    table = pd.DataFrame(rows)
    head = "| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns)
    body = ["| " + " | ".join(row) + " |" for row in table.to_numpy()]
    text = README.format(
        command=command,
        commit=made["environment"]["commit"],
        starts=starts,
        steps=steps,
        simulators="\n".join([head, *body]),
        priors="\n\n".join(priors(output, small)),
    )
    (output / "README.md").write_text(text)
    jacobian_claims.refresh(output)


def summary(name: str, kind: str, run: JacobianRun) -> dict[str, str]:
    """One row of the table that a reader sees."""
    errors = run.rows("certificate", quantity="95th percentile")
    worst = errors.sort_values("value").iloc[-1]
    masked = run.rows("certificate", quantity="flagged share").iloc[0]
    ended = run.rows("time", quantity="terminated share")["value"].mean()
    exponents = {
        loop: run.rows("exponent", block=loop, output="1").iloc[0] for loop in ("closed", "open")
    }
    return {
        "task": name,
        "policy": kind,
        "certified to": f"{worst['value']:.0e} ({worst['block']})",
        "masked": f"{100 * masked['value']:.2g}% [{100 * masked['ci_low']:.2g}, "
        f"{100 * masked['ci_high']:.2g}]",
        "retried": str(run.notes.get("retried", 0)),
        "λ closed loop": _interval(exponents["closed"]),
        "λ open loop": _interval(exponents["open"]),
        "after termination": f"{100 * ended:.0f}%",
    }


def priors(output: Path, small: bool) -> Iterator[str]:
    """Compare each prior with its simulator; yields a paragraph each."""
    size = ["--starts", "16", "--horizon", "5"] if small else ["--starts", "512"]
    for folder, task in PRIORS.items():
        place = (output / folder).resolve()
        place.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            run = Path(f"{task}-jacobians.h5")
            words = ["jacobians", task, "--model", "prior", *size, "--output", str(run)]
            if code := cli.main(words):
                raise SystemExit(code)
            shutil.copy(run.with_suffix(".html"), place / "report.html")
            for picture in run.with_name(f"{run.stem}_figures").glob("*.png"):
                shutil.copy(picture, place)
            found = load(run)
        kept = found.table()[lambda table: ~table["section"].isin(["growth", "entry"])]
        kept.dropna(axis=1, how="all").to_csv(
            place / "numbers.csv", index=False, float_format="%.6g"
        )
        sentences = "\n".join(f"- {sentence.text}" for sentence in verdict(found))
        command = found.config["command"]
        yield f"### {task}\n\n`{command}` ([page]({folder}/report.html))\n\n{sentences}"


def _interval(row: pd.Series) -> str:
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
