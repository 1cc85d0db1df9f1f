"""Does the certificate name planted faults, and is it silent where nothing is wrong?

    python -m analyses.certificates.planted_faults [--samples 2048] [--sound-samples 512]
    python -m analyses.certificates.planted_faults --only-inexact     # 2,048 states, three seeds

faults   forty mistakes in sound torch systems, each shown by plain differences to break the blocks
         that are named here (`tests/certification`)
sound    more than two hundred systems without a mistake
inexact  sound steps that compute in less than their numbers show, or to a tolerance
power    one entry of a sound system's Jacobian times 1 + δ, at every state

A fault is named where a finding is of its kind, and none is about a block that it does not break. A
step with hidden randomness is named by being refused.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from torch import Tensor

import gradlab
from analyses.harness.cells import grown
from gradlab.systems import Linearization, System, from_function
from gradlab.systems.system import BLOCKS
from gradlab.tasks import Task
from tests.certification.faults.fault import WRONG, Fault, Relinearized
from tests.certification.faults.judged import alarms, outcome
from tests.certification.faults.planted import FAULTS
from tests.certification.inexact_steps import DA, DS, INEXACT
from tests.certification.sound_systems import ball, linear, mujoco_tasks, net, sound_tasks

DELTAS = (5e-4, 2e-3, 1e-2, 0.1)
FEW = 128  # states of one system of `power`


def faults(samples: int) -> pd.DataFrame:
    """One row per planted fault."""
    return pd.DataFrame([_certified(fault, samples) for fault in FAULTS])


def _certified(fault: Fault, samples: int) -> dict[str, object]:
    certified = outcome(fault, samples)
    findings = certified.findings
    return {
        "fault": fault.name,
        "breaks": ", ".join(fault.blocks) or "the step",
        "named": certified.named,
        "blocks": _listed(finding.block or "the step" for finding in findings),
        "kinds": _listed(finding.kind for finding in findings) or "refused",
        "strata": _listed(finding.stratum or "all" for finding in findings),
        "size": f"{findings[0].size:.2g}" if findings else "",
        "sentence": certified.sentence,
    }


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def sound(samples: int) -> pd.DataFrame:
    """One row per sound system."""
    systems: Mapping[str, Task] = dict(sound_tasks()) | dict(mujoco_tasks())
    return pd.DataFrame([_silent(name, task, samples) for name, task in systems.items()])


def _silent(name: str, task: Task, samples: int) -> dict[str, object]:
    begin = time.process_time()
    certification = gradlab.certify(task, samples=samples)
    seconds = time.process_time() - begin
    raised = alarms(certification)
    return {
        "system": name,
        "alarms": len(raised),
        "p95": f"{certification.table()['p95'].max():.1g}",
        "seconds": f"{seconds:.0f}",
        "sentence": raised[0].sentence if raised else "",
    }


def inexact(samples: int, output: Path) -> list[dict[str, Any]]:
    """One row per kind and seed; goes on where it was stopped."""
    return grown(
        output, itertools.product(INEXACT, range(3)), ("kind", "seed"),
        lambda kind, seed: _accused(kind, seed, samples), lambda row: row["sentence"],
    )  # fmt: skip


def _accused(kind: str, seed: int, samples: int) -> dict[str, Any]:
    system = from_function(INEXACT[kind], DS, DA)
    certificate = gradlab.certify(system, samples=samples, seed=seed)
    wrong = [each.sentence for each in certificate.findings if each.severity == "wrong"]
    return {
        "kind": kind, "seed": seed, "accusations": len(wrong), "passed": certificate.passed,
        "onsets": certificate.facts["strata"]["onset"], "sentence": " ".join(wrong),
    }  # fmt: skip


def power() -> pd.DataFrame:
    """Share of systems whose broken entry is named, by the size of the error."""
    tasks = [*map(net, range(8, 14)), *map(linear, range(8, 14)), *map(ball, range(8, 11))]
    rows = []
    for delta in DELTAS:
        for block in BLOCKS:
            named = [
                outcome(one, FEW).named
                for task in tasks
                if (one := _scaled_entry(task, block, delta)) is not None
            ]
            share = sum(named) / len(named)
            rows.append({"δ": delta, "block": block, "systems": len(named), "named": share})
    return pd.DataFrame(rows)


def _scaled_entry(task: Task, block: str, delta: float) -> Fault | None:
    """The entry of largest mean square times 1 + δ; None where the block is 0."""
    system = task.simulator
    generator = torch.Generator().manual_seed(0)
    s = task.starts(64, generator)
    a = torch.randn(64, system.action_dim, generator=generator, dtype=torch.float64)
    sizes = getattr(system.linearize(s, a), block).square().mean(0)
    if not bool(sizes.any()):
        return None
    factor = torch.ones_like(sizes)
    factor.view(-1)[int(sizes.argmax())] = 1 + delta

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        sound = system.linearize(s, a)
        return replace(sound, **{block: getattr(sound, block) * factor})

    bent = replace(task, simulator=Relinearized(system, bend), prior=None)
    return Fault(f"{block} × {1 + delta}", (block,), WRONG, lambda: bent)


def page(
    planted: pd.DataFrame, silent: pd.DataFrame, sizes: pd.DataFrame, samples: tuple[int, int]
) -> str:
    """Counts and tables in Markdown."""
    named, rung = int(planted["named"].sum()), silent[silent["alarms"] > 0]
    alarm = f": {', '.join(rung['system'])}" if len(rung) else ""
    wide = sizes.pivot(index="δ", columns="block", values="named")[list(BLOCKS)].reset_index()
    return f"""# Planted faults

`python -m analyses.certificates.planted_faults` writes this page and the tables beside it:
`planted-faults.csv` with the first sentence of every verdict, `sound-systems.csv` and
`planted-sizes.csv`.

- {named} of {len(planted)} faults are named, at {samples[0]} states each: a finding is of the
  fault's kind, and none is about a block that is sound.
- {len(rung)} of {len(silent)} sound systems fail, at {samples[1]} states each{alarm}.

{_markdown(planted.drop(columns="sentence"))}

## How small an error

One entry of `linearize`, the block's largest, is multiplied by 1 + δ at every state of up to
{sizes["systems"].max()} systems (networks, linear-quadratic, contact), each certified at {FEW}
states. The table has the share whose block is named, and no other; δ = 5e-4 is below the default
`fail_above` of 1e-3.

{_markdown(wide)}
"""


def _markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(
    samples: int = 2048,
    sound_samples: int = 512,
    output: Path = Path("reports/certificates"),
    only_inexact: bool = False,
) -> None:
    """
    Args:
        samples: states of each fault.
        sound_samples: states of each sound system.
        output: folder of the page and its tables.
        only_inexact: certify the inexact steps at three seeds, and nothing else.
    """
    output.mkdir(parents=True, exist_ok=True)
    if only_inexact:
        rows = inexact(samples, output / "inexact-systems.jsonl")
        print(f"{sum(row['accusations'] > 0 for row in rows)} of {len(rows)} accused")
        return
    planted, silent, sizes = faults(samples), sound(sound_samples), power()
    planted.to_csv(output / "planted-faults.csv", index=False)
    silent.drop(columns="seconds").to_csv(output / "sound-systems.csv", index=False)
    sizes.to_csv(output / "planted-sizes.csv", index=False)
    (output / "planted-faults.md").write_text(
        page(planted, silent, sizes, (samples, sound_samples)), encoding="utf-8"
    )


if __name__ == "__main__":
    tyro.cli(main)
