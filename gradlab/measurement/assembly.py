"""A measurement as plain labelled values: moments become estimates with intervals, the truth and
the settings what a file can hold.

One truth for many sets of estimators: it is made once, and everything is paired.

    truth = shared_truth(task, policy, starts=256, horizon=15)
    plain, normalised = truth.profile({"model": …}), truth.profile({"model": …})

Same starts, same noise streams, same truth as `measure` with the same seed gives; without the
checks, bounds and kernels that a single measurement adds, which cost more than its moments.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance
from gradlab.data.trajectories import Path, stream
from gradlab.findings import checks
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, group_count
from gradlab.measurement.arguments import check_networks, estimators_at, identify, stepped
from gradlab.measurement.config import FEWEST, MeasureConfig, Termination
from gradlab.measurement.inner_products import Cells, estimator_moments
from gradlab.measurement.resolve import starts_of
from gradlab.networks.interface import double_copy
from gradlab.progress import Progress, silent
from gradlab.runs.profile import COLUMNS, Profile
from gradlab.statistics import quantities
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import QUANTITIES, estimates
from gradlab.statistics.quantities import TABLE
from gradlab.tasks import Task
from gradlab.truth.truth import Truth, matched_truth
from gradlab.user_code import differentiating

_OF_THE_RETURN = {quantity.name for quantity in TABLE if quantity.needs == "return"}


def assembled(
    cells: Cells,
    horizon: int,
    batch: int,
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    truth: Mapping[str, Any],
) -> Profile:
    """Every quantity of every cell with its interval and left-out values.

    What needs the gradient of the return is kept only where the truth is that gradient.
    """
    unknown = set() if truth.get("kind") == "objective" else _OF_THE_RETURN
    names = tuple(dict.fromkeys(name for name, _ in cells))
    groups = len(next(iter(cells.values())).size)
    shape = (len(names), len(QUANTITIES), horizon + 1)
    columns = {name: np.full(shape, np.nan) for name in COLUMNS}
    count = np.zeros(shape, dtype=np.int64)
    method = np.full(shape, "", dtype=object)
    left_out = np.full((*shape, groups), np.nan)
    for (name, n), moments in cells.items():
        for quantity, estimate in estimates(moments, batch).items():
            if quantity in unknown:
                continue
            cell = names.index(name), QUANTITIES.index(quantity), n
            span = interval(quantity, estimate)
            lost = int((~np.isfinite(moments.squares)).sum())
            value = quantities.QUANTITIES[quantity].reported(estimate.value, span.low, span.high)
            numbers = (value, span.se, span.low, span.high)
            for column, number in zip(COLUMNS, numbers, strict=True):
                columns[column][cell] = number
            count[cell] = int(moments.size.sum())
            method[cell] = f"{lost} groups of gradients are not finite" if lost else span.method
            left_out[cell] = estimate.left_out
    horizons = tuple(range(horizon + 1))
    return Profile(
        names, QUANTITIES, horizons, columns, count, method, left_out, config, environment, truth
    )


def truth_values(truth: Truth, kind: str) -> dict[str, Any]:
    """The truth as plain values; those of a second kind of gradient are prefixed with "all_"."""
    method = "simulator unrolled with its own Jacobians, checked by finite differences"
    if truth.status == "score":
        method = "score function with a linear baseline and antithetic noise"
    if kind == "objective":
        method += "; first-action gradients at visited states, times 1/(1 − γ)"
    values: dict[str, Any] = {
        "kind": kind,
        "method": method,
        "admissible": truth.admissible,
    }
    plain = ["status", "horizon", "lyapunov", "remainder", "flagged"]
    if not np.isnan(truth.growth):
        plain += ["growth"]
    if not np.isnan(truth.boundary):
        plain += ["boundary", "boundary_se"]
    values |= {name: getattr(truth, name) for name in plain} | checks.truth_values(truth.finding)
    for prefix, reference in (("", truth.first or truth.every), ("all_", truth.every)):
        if reference is not None and (prefix == "" or truth.first is not None):
            numbers = (
                "norm", "standard_error", "relative_se", "discrepancy", "distance", "distance_se",
                "missing", "concentration",
            )  # fmt: skip
            values |= {f"{prefix}{name}": getattr(reference, name) for name in numbers}
    references = [reference for reference in (truth.first, truth.every) if reference is not None]
    values["carried_by_few"] = any(reference.carried_by_few for reference in references)
    return values


def configuration(
    task: Task,
    setting: Setting,
    policy: nn.Module,
    critic: nn.Module | None,
    batch: int,
    truth: str,
    command: str,
) -> dict[str, Any]:
    """What was asked for, as it is recorded.

    Args:
        setting: as gradients were measured; policy: without an entropy term.
    """
    begin = setting.starts
    return {
        "task": task.name,
        "task_parameters": dict(task.parameters),
        "policy_hash": provenance.network_hash(policy),
        "critic_hash": "" if critic is None else provenance.network_hash(critic),
        "horizon": setting.horizon,
        "starts": len(begin.states),
        "starts_hash": provenance.tensors_hash(begin.states, begin.weight, begin.group),
        "groups": group_count(begin.group),
        "batch": batch,
        "discount": task.discount,
        "truth": truth,
        "termination": setting.termination,
        "seed": setting.seed,
        "command": command,
    }


def predictions(task: Task) -> str:
    """What a task's model is: its type, and a print of what it predicts from four starts."""
    if task.prior is None:
        return "none"
    s = task.starts(4, stream(0, "probe")).double()
    a = torch.full((4, task.prior.action_dim), 0.1, dtype=torch.float64)
    with torch.no_grad():
        x = stepped(task.prior, s, a, None)
    # To six digits: rounding, as of another number of threads, is no other model.
    _, exponent = torch.frexp(x.nan_to_num())
    digits = torch.ldexp(torch.ldexp(x.nan_to_num(), 20 - exponent).round(), exponent - 20)
    return f"{type(task.prior).__name__} {provenance.tensors_hash(digits)[:8]}"


@dataclass(frozen=True, eq=False)
class SharedTruth:
    """The matched truth of gradients with θ in the first action, for one policy and its starts.

    Attributes:
        setting: where gradients are taken; its policy is a float64 copy.
        reference: the truth itself.
        batch: as in `measure`.
        law: "start", or "given" for states that the caller drew
            (see `gradlab.measurement.arguments`).
    """

    task: Task
    setting: Setting
    reference: Truth
    batch: int
    law: str

    def profile(
        self,
        estimators: Mapping[str, Estimator],
        *,
        kernels: bool = False,
        command: str = "",
        progress: Progress = silent,
    ) -> Profile:
        """Moments of each estimator at every horizon, as `measure` has them.

        Args:
            kernels: keep inner products between cells, too, which weights of mixtures need.

        Raises:
            InputError: there is none, or one is no `Estimator`.
        """
        begun, horizon = time.monotonic(), self.setting.horizon
        chosen = estimators_at(self.task, None, estimators, horizon)
        kept = None if kernels else ()
        measured = estimator_moments(
            chosen, self.setting, self.reference, progress, batch=self.batch, kept=kept
        )
        config = configuration(
            self.task, self.setting, self.setting.policy, None, self.batch, "matched", command,
        )  # fmt: skip
        config |= {
            "law": self.law,
            "actions": {name: estimator.actions for name, estimator in chosen.items()},
        }
        environment = provenance.environment(begun)
        truth = truth_values(self.reference, "matched")
        profile = assembled(measured.cells, horizon, self.batch, config, environment, truth)
        profile = replace(profile, identities=identify(chosen, self.task.simulator))
        return replace(profile, kernels=measured.kernels) if kernels else profile


@differentiating
def shared_truth(
    task: Task,
    policy: nn.Module,
    starts: int | Tensor | Path = 256,
    horizon: int | None = None,
    batch: int = 256,
    termination: Termination = "ignore",
    seed: int = 0,
    *,
    check: bool = True,
    progress: Progress = silent,
) -> SharedTruth:
    """The truth for `policy` at the task's starts, or at given states; arguments as in `measure`.

    Args:
        check: False: without the comparison with finite differences (`matched_truth`).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    H = task.horizon if horizon is None else horizon
    count = starts if isinstance(starts, int) else FEWEST
    MeasureConfig(horizon=H, starts=count, batch=batch, termination=termination, seed=seed)
    check_networks(task, policy, None)
    policy, begin = double_copy("policy", policy), starts_of(task, starts, seed)
    setting = Setting(task.simulator, policy, begin, task.discount, H, termination, seed)
    reference = matched_truth(setting, kinds=["first"], check=check, progress=progress)
    law = "start" if isinstance(starts, int) else "given"
    return SharedTruth(task, setting, reference, batch, law)
