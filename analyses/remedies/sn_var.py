"""SN-VAR: does spectral normalisation of model and policy cut the variance of their gradients?

    claim       with all layers of the policy and all but the last of the model normalised, the
                mean gradient variance is much lower for all unroll lengths
    paper       RP-PGM, section 7.2, Figs. 2 and 5, appendix B.1
    criterion   variance ratio plain/normalised above 1 at every h, by intervals that hold together,
                and at least 10 at h = 15; slope of log variance over h at most half as large; on
                both tasks

    python -m analyses.remedies.sn_var [--small] [--output reports/remedies]

Two swing-ups, 5 seeds of data, models and policies (`spectral_arms`), before and after 100 updates
by 5-step gradients through each arm's own model; judged after. θ in every action, 256 starts, no
critic. All arms are compared by their plain weights V; beside it by W, V = W/σ(W), in which an
optimiser sees them. The price: error of [A B] on fresh states, and the distance of the mean
gradient from the simulator's on the same starts and noise, relative to the latter. A small gradient
has a small variance: variance / |mean|² says what of the gain is more than that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analyses.harness.student import geometric_mean
from analyses.harness.verdicts import Verdict, study
from analyses.remedies import page as remedy_claims
from analyses.remedies.spectral_arms import (
    ARMS,
    HORIZONS,
    MODEL,
    ROWS,
    SEEDS,
    UPDATES,
    Trial,
    by_raw_weights,
    gradients,
    plain,
    tasks,
    traces,
    treated,
    trial,
    world,
)
from gradlab.data.noise import child, stream
from gradlab.fitting.collection import collect
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import as_starts
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.system import System

FOLDER = remedy_claims.FOLDER
SAMPLES = 256
JUDGED = 15
FROM = 5
LEAST = 10.0
STAGES = ("at first", "improved")
PLAIN, BOTH = "neither", "both"
Array = NDArray[np.float64]


def measure(small: bool = False) -> Verdict:
    seeds, rows, updates, samples = (2, 500, 2, 32) if small else (SEEDS, ROWS, UPDATES, SAMPLES)
    epochs = 2 if small else MODEL.epochs
    found = [
        row
        for name in tasks()
        for seed in range(seeds)
        for row in rows_of(name, trial(name, seed, rows, epochs), updates, samples)
    ]
    return judge(pd.DataFrame(found))


def rows_of(name: str, made: Trial, updates: int, samples: int) -> Iterator[dict[str, object]]:
    """One row per stage, arm and h."""
    errors = {each: jacobian_error(made, each) for each in (False, True)}
    for arm, which in ARMS.items():
        alike, fitted = treated(made, which, updates), made.fits[which.model]
        norms = [layer.values[0] for layer in fitted.norms]
        about = {
            "task": name,
            "arm": arm,
            "seed": made.seed,
            "N": samples,
            "jacobian_error": errors[which.model],
            "explained": float(fitted.explained.mean()),
            "last_norm": norms[-1],
            "product_of_norms": math.prod(norms),
        }
        for stage, policy in zip(STAGES, (alike.first, alike.improved), strict=True):
            # Return of 30 simulator steps, and the share of actions within 1% of their limit.
            system, seed = made.task.simulator, child(made.seed, "spectral gradients")
            starts = as_starts(made.task.starts(samples, stream(seed, "starts")), system.state_dim)
            path = rollout(system, plain(policy), starts, HORIZONS[-1], seed)
            limit = torch.tensor(made.task.action_limit)
            place = {"stage": stage} | {
                "return": float(path.rewards.sum(0).mean()),
                "saturated": float((path.actions.abs() > 0.99 * limit).double().mean()),
            }
            for h, numbers in moments(made, alike.model, policy, samples).items():
                yield about | place | {"h": h} | numbers


def moments(
    made: Trial, model: System, policy: nn.Module, samples: int
) -> dict[int, dict[str, float]]:
    """Variance, size and error of the gradient through `model` at every h."""
    change, policy = by_raw_weights(policy), plain(policy)
    ours, truth = (
        gradients(
            world("", made.task, system), policy, "all", samples, HORIZONS,
            child(made.seed, "spectral gradients"),
        )
        for system in (model, made.task.simulator)
    )  # fmt: skip
    return {
        h: _numbers(G, S) | {"variance_raw": traces(change(G))[0]}
        for h, G, S in zip(HORIZONS, ours, truth, strict=True)
    }


def _numbers(ours: Tensor, truth: Tensor) -> dict[str, float]:
    variance, mean, true = traces(ours)[0], ours.mean(0), truth.mean(0)
    return {
        "variance": variance,
        "relative_variance": variance / float(mean @ mean),
        "distance": float((mean - true).norm() / true.norm()),
        "simulator": traces(truth)[0],
    }


def jacobian_error(made: Trial, normalised: bool) -> float:
    """‖[A B] − [Â B̂]‖ / ‖[A B]‖, root mean square over fresh states of the random policy.

    States at a clip or a change of contact, where the simulator has no derivative, are left out.
    """
    data = collect(made.task, 1024, seed=child(made.seed, "fresh states"))
    system = LearnedSystem(made.fits[normalised].ensemble, made.reward)
    both = [each.linearize(data.state, data.action) for each in (made.task.simulator, system)]
    smooth = ~both[0].certificate.flags
    true, found = (torch.cat([each.A, each.B], dim=2)[smooth] for each in both)
    return float((found - true).square().sum().sqrt() / true.square().sum().sqrt())


def ratio(first: Array, second: Array, level: float = 0.95) -> tuple[float, float, float]:
    """Geometric mean over trials of first / second, paired, with Student's interval.

    Five trials are too few to correct an interval for skewness.
    """
    return geometric_mean(np.asarray(first) / np.asarray(second), level)


def slopes(rows: pd.DataFrame) -> pd.Series:
    """Slope of log variance over h, per seed."""
    h = np.array(HORIZONS, dtype=float)
    weights = (h - h.mean()) / ((h - h.mean()) ** 2).sum()
    wide = np.log(rows.pivot(index="seed", columns="h", values="variance")[list(HORIZONS)])
    return pd.Series(wide.to_numpy() @ weights, index=wide.index)


def compared(
    rows: pd.DataFrame, arm: str, column: str, h: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Ratio of the plain arm's column to another's at one h, paired by seed."""
    at = rows[rows["h"] == h].pivot(index="seed", columns="arm", values=column)
    return ratio(at[PLAIN].to_numpy(), at[arm].to_numpy(), level)


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from one row per task, stage, arm, seed and h."""
    told, numbers, met = [], {}, []
    for (task, stage), rows in table.groupby(["task", "stage"], sort=False):
        found = cell(rows)
        key = f"{task}_{stage}".replace(" ", "_")
        numbers |= {f"{key}_{name}": value for name, value in found.items()}
        if stage == STAGES[1]:
            met.append(bool(found["met"]))
        told.append(f"{task}, policies {stage}: {_told(rows, found)}")
    sentence = (
        f"{'Met' if all(met) else f'Met in {sum(met)} of {len(met)} cases'}. Variance "
        f"plain / normalised, {'; '.join(told)}. {_price(table)} Geometric means over "
        f"{table['seed'].nunique()} seeds; N = {table['N'].iloc[0]} starts, θ in every action, "
        f"gradients by plain weights unless said."
    )
    return Verdict(
        "SN-VAR",
        "RP-PGM, section 7.2, Figs. 2 and 5",
        "variance plain/normalised above 1 at every h by intervals that hold together, >= 10 at "
        "h = 15; slope of log variance at most half; improved policies, both tasks",
        all(met),
        sentence,
        numbers,
        table,
    )


def cell(rows: pd.DataFrame) -> dict[str, float]:
    """The criterion's numbers for one task and stage; ratios of all horizons, "h5", hold together
    in 95% (Bonferroni), since any of them refutes that every one is cut."""
    level = 1 - 0.05 / len(HORIZONS)
    every = {h: compared(rows, BOTH, "variance", h, level) for h in HORIZONS}
    steep = {arm: slopes(rows[rows["arm"] == arm]) for arm in ARMS}
    late = min(compared(rows, BOTH, "variance", h)[1] for h in HORIZONS if h >= FROM)
    cut = all(low > 1 for _, low, _ in every.values())
    halved = steep[BOTH].mean() <= 0.5 * steep[PLAIN].mean()
    found = {
        "met": float(every[JUDGED][0] >= LEAST and cut and halved),
        "lowest_end": late,
        "slope_plain": steep[PLAIN].mean(),
        "slope_both": steep[BOTH].mean(),
    }
    for name, column in (("ratio", "variance"), ("ratio_raw", "variance_raw"),
                         ("relative", "relative_variance"), ("distance", "distance")):  # fmt: skip
        for arm in (BOTH,) if name != "ratio" else tuple(ARMS)[1:]:
            for end, value in zip(
                ("", "_low", "_high"), compared(rows, arm, column, JUDGED), strict=True
            ):
                found[f"{name}_{arm}{end}"] = value
    for h, ends in every.items():
        found |= dict(zip((f"h{h}", f"h{h}_low", f"h{h}_high"), ends, strict=True))
    return found


def _told(rows: pd.DataFrame, found: Mapping[str, float]) -> str:
    def said(name: str) -> str:
        return f"{found[name]:.3g}× [{found[f'{name}_low']:.2g}, {found[f'{name}_high']:.2g}]"

    at = rows[rows["h"] == JUDGED].groupby("arm")[["distance", "return", "saturated"]].median()
    return (
        f"{said('ratio_both')} at h = {JUDGED} (model alone {said('ratio_model')}, policy alone "
        f"{said('ratio_policy')}; by W {said('ratio_raw_both')}; variance / |mean|² "
        f"{said('relative_both')}), lowest end from h = {FROM} on {found['lowest_end']:.2g}, slope "
        f"{found['slope_plain']:.3f} against {found['slope_both']:.3f} per step, distance from the "
        f"simulator's gradient {at['distance'][PLAIN]:.2g} against {at['distance'][BOTH]:.2g} of "
        f"its size; return of 30 true steps {at['return'][PLAIN]:.4g} against "
        f"{at['return'][BOTH]:.4g}, actions at their limit {at['saturated'][PLAIN]:.0%} against "
        f"{at['saturated'][BOTH]:.0%}"
    )


def _price(table: pd.DataFrame) -> str:
    told = []
    for task, rows in table.groupby("task", sort=False):
        each = rows.drop_duplicates(["arm", "seed"]).pivot(index="seed", columns="arm")
        error, explained = each["jacobian_error"], 1 - each["explained"]
        times = ratio(error["model"].to_numpy(), error[PLAIN].to_numpy())
        worse = ratio(explained["model"].to_numpy(), explained[PLAIN].to_numpy())
        told.append(
            f"{task}: Jacobian error {error[PLAIN].median():.2g} → {error['model'].median():.2g} "
            f"({times[0]:.2g}× [{times[1]:.2g}, {times[2]:.2g}]), held-out squared error "
            f"{worse[0]:.2g}× [{worse[1]:.2g}, {worse[2]:.2g}], norm of the last layer "
            f"{_change(each['last_norm'])}, product over layers {_change(each['product_of_norms'])}"
        )
    return f"The price of normalising the model: {'; '.join(told)}."


def _change(values: pd.DataFrame) -> str:
    return f"{values[PLAIN].median():.2g} → {values['model'].median():.2g}"


if __name__ == "__main__":
    study(measure, FOLDER, remedy_claims.refresh)
