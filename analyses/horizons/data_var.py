"""DATA-VAR: does J_0 vary much between critics early on, and J_H not; is J_H the biased one later?

    claim       early the data gradient has a large variance, the model gradient a low one but a
                bias; later the data gradient is the better one
    paper       MPG, Fig. 1 and section III-B; MPG-J, Fig. 1
    criterion   at each checkpoint 10 critics × 10 batches, variance split into a batch's and a
                critic's part: early Var_critic(J_0) > Var(J_H), late bias(J_H) > bias(J_0), by
                95% intervals

    python -m analyses.horizons.data_var [--small] [--output reports/horizon-claims]

From `critic_samples` (critics) and `checkpoint_samples` (bias). With M_cb the mean gradient of
batch b under critic c, squares summed over θ, the two-way analysis of variance gives
    critic        (MS_critic − MS_both)/10       of J under another critic
    batch         (MS_batch − MS_both)/10 and MS_both, at N′ = 256: of another batch
without bias. Var(J_H) is the sum of both. Intervals: jackknife over critics and over batches,
their variances added. The fitted critics all have 2000 updates, so that what they share with a
critic of the run is the policy; "early" is before training, and 5% of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import nn

from analyses.harness.verdicts import Verdict, save
from analyses.horizons import critic_samples
from analyses.horizons.checkpoint_errors import errors
from analyses.horizons.checkpoint_samples import (
    BATCH,
    CHECKPOINTS,
    HORIZON,
    ITERATIONS,
    KEPT,
    TASKS,
    load,
    policy_at,
)
from analyses.horizons.critic_samples import CriticSamples, file_of
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.starts import as_starts
from gradlab.statistics.intervals import Z, jackknife_se

FOLDER = Path("reports/horizon-claims")
EARLY, LATE = ITERATIONS[:2], ITERATIONS[-1]
Array = np.ndarray


def measure(checkpoints: Path, folder: Path = KEPT, small: bool = False) -> Verdict:
    parts, biases = [], []
    for place in critic_samples.places(TASKS[1:] if small else TASKS):
        if small and place.iteration not in (EARLY[0], LATE):
            continue
        policy, file = policy_at(place, checkpoints), file_of(place, folder)
        if file.exists():
            found = split(critic_samples.load(file), policy)
            parts.append(found.assign(task=place.task, iteration=place.iteration))
        if place.iteration == LATE:
            biases.append(errors(load(folder / place.name), policy))
    return judge(pd.concat(parts), pd.concat(biases))


def split(samples: CriticSamples, policy: nn.Module) -> pd.DataFrame:
    """Parts of the variance of J_0 and J_H, and by how much they differ, with intervals."""
    products = cell_products(samples, policy)
    per_batch = len(samples.states) // critic_samples.BATCHES

    def parts(K: Array) -> dict[str, float]:
        return compared(K, per_batch)

    C, B = products.shape[1:3]
    value = parts(products)
    critics = [parts(np.delete(np.delete(products, c, 1), c, 3)) for c in range(C)]
    batches = [parts(np.delete(np.delete(products, b, 2), b, 4)) for b in range(B)]
    rows = []
    for name, x in value.items():
        spread = [
            jackknife_se(np.array([each[name] for each in out])) for out in (critics, batches)
        ]
        half = Z * float(np.hypot(*spread))
        row = {"part": name, "value": x, "ci_low": x - half, "ci_high": x + half}
        rows.append(row | {"fitted": samples.fitted})
    return pd.DataFrame(rows)


def cell_products(samples: CriticSamples, policy: nn.Module) -> Array:
    """⟨M_cb, M_c'b'⟩ of the mean gradients of every critic and batch, [2, C, B, C, B]."""
    noise = as_starts(samples.states, samples.states.shape[1]).policy_noise(policy, 0, 0)
    jacobian = policy_jacobian(policy, samples.states, noise)
    C, n = samples.data.shape[:2]
    size = n // critic_samples.BATCHES
    both = torch.cat([samples.data, samples.model])
    rows = [slice(b * size, (b + 1) * size) for b in range(critic_samples.BATCHES)]
    means = torch.stack([gram.mean_gradients(jacobian.rows(r), both[:, r]) for r in rows], dim=1)
    return np.stack([torch.einsum("cbp,dep->cbde", M, M).numpy() for M in (means[:C], means[C:])])


def compared(products: Array, per_batch: int) -> dict[str, float]:
    """Parts of J_0 and J_H at N′ = 256, and the claim's difference."""
    data, model = (components(K, per_batch) for K in products)
    found = {f"J_0 {name}": x for name, x in data.items()}
    found |= {f"J_H {name}": x for name, x in model.items()}
    found["gap"] = data["critic"] - model["critic"] - model["batch"]
    return found


def components(K: Array, per_batch: int) -> dict[str, float]:
    """Critic's and batch's part of the variance from inner products [C, B, C, B]."""
    C, B = K.shape[:2]
    own = np.einsum("cbcb->", K)
    by_critic = np.einsum("cbcd->", K) / B
    by_batch = np.einsum("cbdb->", K) / C
    whole = K.sum() / (C * B)
    critic = (by_critic - whole) / (C - 1)
    batch = (by_batch - whole) / (B - 1)
    both = (own - by_critic - by_batch + whole) / ((C - 1) * (B - 1))
    at_batch = per_batch / BATCH
    return {
        "critic": float((critic - both) / B),
        "batch": float(((batch - both) / C + both) * at_batch),
    }


def judge(parts: pd.DataFrame, biases: pd.DataFrame) -> Verdict:
    """The verdict from parts of variance and errors at every checkpoint."""
    late = biases[
        (biases["quantity"] == "bias_gap") & (biases["estimator"] == "model")
        & (biases["horizon"] == HORIZON) & (biases["law"] == "visited")
        & (biases["iteration"] == LATE)
    ].set_index("task")  # fmt: skip
    wide = parts.set_index(["task", "iteration", "part"]).sort_index()
    tasks = list(dict.fromkeys(parts["task"]))
    met, words, numbers = {}, [], {}
    for task in tasks:
        early = [i for i in EARLY if (task, i, "gap") in wide.index]
        gaps = {i: wide.loc[task, i, "gap"] for i in early}
        biased = bool(late.loc[task, "ci_low"] > 0)
        met[task] = [*(bool(gap["ci_low"] > 0) for gap in gaps.values()), biased]
        words.append(_words(task, wide.loc[task], gaps, late.loc[task]))
        numbers |= {f"gap_{task}_{i}": float(gaps[i]["value"]) for i in early}
        numbers |= {f"late_bias2_gap_{task}": float(late.loc[task, "value"])}
    holds = all(map(all, met.values()))
    opening = "True" if holds else "Partly" if any(map(any, met.values())) else "Not seen"
    sentence = (
        f"{opening}. Squared reward units, critic / batch of {BATCH}. {'. '.join(words)}. Across "
        f"batches J_0 varies less than J_H at {calmer(wide)} checkpoints: Fig. 1 means the one "
        f"across critics."
    )
    return Verdict(
        "DATA-VAR",
        "MPG, Fig. 1, section III-B; MPG-J, Fig. 1",
        "before training and at 5%: Var_critic(J_0) − Var(J_H) above 0; at the end bias²(J_H) − "
        "bias²(J_0) above 0, on both tasks",
        holds,
        sentence,
        numbers,
        parts,
    )


def _words(task: str, own: pd.DataFrame, gaps: Mapping[int, pd.Series], late: pd.Series) -> str:
    """Variances of one task at every checkpoint, and its late bias."""
    each = "; ".join(_described(own.loc[i], i, gap) for i, gap in gaps.items())
    later = [i for i in ITERATIONS[len(EARLY) :] if (i, "gap") in own.index]
    rest = "".join(f"; {_at(own.loc[i], i)}" for i in later)
    return (
        f"{task.replace('_', ' ')}: {each}{rest}; late bias² of J_H less that of J_0 "
        f"{late['value']:.3g} [{late['ci_low']:.3g}, {late['ci_high']:.3g}]"
    )


def calmer(wide: pd.DataFrame) -> str:
    """At how many checkpoints J_0's batch variance is the smaller one."""
    data, model = (wide.xs(f"{name} batch", level="part")["value"] for name in ("J_0", "J_H"))
    return f"{int((data < model).sum())} of {len(data)}"


def _at(parts: pd.DataFrame, iteration: int) -> str:
    value = parts["value"]
    return (
        f"iteration {iteration}: J_0 {value['J_0 critic']:.3g} / {value['J_0 batch']:.3g}, J_H "
        f"{value['J_H critic']:.3g} / {value['J_H batch']:.3g}"
    )


def _described(parts: pd.DataFrame, iteration: int, gap: pd.Series) -> str:
    return (
        f"{_at(parts, iteration)}, Var_critic(J_0) − Var(J_H) {gap['value']:.3g} "
        f"[{gap['ci_low']:.3g}, {gap['ci_high']:.3g}]"
    )


def main(
    small: bool = False,
    checkpoints: Path = CHECKPOINTS,
    samples: Path = KEPT,
    output: Path = FOLDER,
) -> None:
    """Judge what `critic_samples` and `checkpoint_samples` have measured.

    Args:
        small: first and last checkpoint of the pendulum.
        checkpoints: folder of the training runs, whose policies are needed.
        samples: folder of the samples.
        output: folder of the verdict.
    """
    save(measure(checkpoints, samples, small), output, "python -m analyses.horizons.data_var")


if __name__ == "__main__":
    tyro.cli(main)
