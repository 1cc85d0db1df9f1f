"""`measure_logs`: the policy gradient through a learned model, measured on recorded trajectories.

Without a simulator there is no truth. The score-function gradient of the recorded returns is
unbiased and noisy: its noise is measured first, then the model's gradient is compared with it on
the same trajectories, horizon by horizon.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from gradlab import provenance
from gradlab.data.trajectories import Trajectories
from gradlab.gradients.estimator import Critics, Estimator
from gradlab.gradients.setting import Tail
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.long_table import At, RowCollector, number
from gradlab.statistics.growth import variance_growth
from gradlab.statistics.intervals import Z
from gradlab.statistics.over_groups import Estimates
from gradlab.systems.system import Recorded, System
from gradlab.tools.logs.arguments import (
    Arguments,
    Windows,
    checked,
    windows,
)
from gradlab.tools.logs.diagnostics import (
    Judged,
    Residuals,
    directional,
    judged,
    refuse_far,
    residuals,
    return_bound,
)
from gradlab.tools.logs.findings import LogsRun
from gradlab.tools.logs.gradients import (
    WindowGradients,
    agreement,
    model_source,
    noise_of,
    score_source,
)
from gradlab.user_code import differentiating


def _add_gradients(rows: RowCollector, what: Arguments, cut: Windows, progress: Progress) -> None:
    """Sections gradient and agreement."""
    states, n = Recorded(what.data.state.shape[1], what.data.action.shape[1]), cut.trajectories
    H, critics = what.horizons[-1], what.critics or (None,)
    short, tails = cut.path.cut(H), [Tail(H, each, what.discount) for each in critics]
    scores = dict[str, WindowGradients]()
    if what.stochastic:
        score = Estimator(states, None, "score", tails[0])
        scores["score"] = score_source(score, what.policy, short, what.horizons, what.seed)
        if what.reach > H:
            long = Estimator(states, None, "score", Tail(what.reach, None, what.discount))
            reach = (what.reach,)
            scores["whole"] = score_source(long, what.policy, cut.path, reach, what.seed)
    known = {name: source.moments() for name, source in scores.items()}
    for name, moments in known.items():
        for h, own in zip(scores[name].horizons, moments, strict=True):
            _add(rows, "gradient", noise_of(own), n, At(block=name, step=h))
    if what.model is None:
        return
    models = [Estimator(states, what.model, "all", tail) for tail in tails]
    model = model_source(models, what.policy, short, what.horizons, what.seed)
    far = model.moments(scores["whole"].explicit(0)) if "whole" in scores else []
    variances = {}
    for k, (h, own) in enumerate(zip(what.horizons, model.moments(), strict=True)):
        progress("gradients", k, len(what.horizons))
        noise = noise_of(own)
        _add(rows, "gradient", noise, n, At(block="model", step=h))
        if h > 0:
            variances[float(h)] = noise["variance"][0]
        if not own.squares.any():
            continue  # no action reaches a reward in so few steps: nothing to agree about
        if "score" in scores:
            (same,) = model.moments(scores["score"].explicit(k), only=k)
            found = agreement(same, known["score"][k])
            _add(rows, "agreement", found, n, At(block="same", step=h))
        if far:
            found = agreement(far[k], known["whole"][0])
            _add(rows, "agreement", found, n, At(block="whole", step=h))
    progress("gradients", len(what.horizons), len(what.horizons))
    # How the variance of the model's gradient grows from horizon 1 on.
    growth = variance_growth(
        np.array([*variances]),
        np.array([estimate.value for estimate in variances.values()]),
        np.stack([estimate.left_out for estimate in variances.values()]),
    )
    if growth is not None:  # slope of the log variance per step
        slope = number(growth.slope, growth.low, growth.high, n, "jackknife")
        rows.add("gradient", "variance_slope", slope, At(block="model", step=growth.onset))


HORIZON = 25


@differentiating
def measure_logs(
    data: Trajectories,
    policy: nn.Module,
    model: System | None = None,
    critic: Critics = None,
    *,
    discount: float,
    horizon: int = HORIZON,
    reach: int | None = None,
    every: int | None = None,
    noise_std: float | Sequence[float] | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> LogsRun:
    """Measure a policy's gradient through a model on trajectories that the policy recorded.

    Args:
        data: recorded by this policy, and not used to fit the model.
        policy: stochastic with a density (`networks.policies`), or deterministic; measured as a
            float64 copy.
        model: whose Jacobians are measured; None: the score alone.
        critic: Q of the tail, one or several; None: returns of n steps without a tail.
        discount: γ in (0, 1].
        horizon: H, the model's longest.
        reach: T, steps of the whole return; None: as long as the trajectories allow, at most until
            γᵀ is 1%; H with `every`.
        every: a window begins every so many steps; None: with its trajectory alone, so that the
            start law is that of the episodes.
        noise_std: standard deviation of the Gaussian noise that was added to a deterministic
            policy's actions, in action units.
        settings: recorded in the file.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do; data of another policy.
    """
    begun = time.monotonic()
    progress = check_progress(progress)
    what = checked(
        data, policy, model, critic, discount, horizon, reach, every, noise_std, seed
    )  # fmt: skip
    rows = RowCollector()
    notes: dict[str, object] = {}
    if what.stochastic:
        statistics = residuals(what.policy, what.data.state.double(), what.data.action.double())
        assert statistics is not None
        refuse_far(statistics, what.data.action_names)
        _add_policy(rows, statistics, what.data.action_names)
        notes["on_policy"] = statistics.on_policy
    cut = windows(data, what.reach, every)
    low, high = return_bound(cut.path, what.discount)
    notes |= {
        "left_out": cut.left_out,
        "ended": cut.ended,
        "remainder": what.discount**what.reach,
        "return_bound": [low, high],
    }
    _add_gradients(rows, what, cut, progress)
    for k, network in enumerate(what.critics):
        found = judged(network, cut.path, discount)
        _add(rows, "critic", found, cut.trajectories, At(block=f"critic {k + 1}"))
    if what.model is not None:
        progress("model", 0, 1)
        notes["neighbours"] = _add_directions(rows, what, what.model)
        progress("model", 1, 1)
    config: dict[str, object] = {
        "trajectories": cut.trajectories, "windows": cut.path.states.shape[1],
        "transitions": len(what.data), "discount": what.discount, "horizon": what.horizons[-1],
        "horizons": list(what.horizons), "reach": what.reach, "every": every,
        "critics": len(what.critics), "stochastic": what.stochastic, "seed": what.seed,
        "policy": type(policy).__name__, "policy_hash": provenance.network_hash(policy),
        "noise_std": noise_std,
        "model": None if model is None else type(model).__name__,
    } | dict(settings or {})  # fmt: skip
    names = data.state_names, data.action_names
    return LogsRun(rows.columns, *names, config, provenance.environment(begun), notes)


def _add_directions(rows: RowCollector, what: Arguments, model: System) -> bool:
    """The model's own derivatives on these data; were there neighbours enough?"""
    near = directional(what.data, model, what.seed)
    if near is None:
        return False
    # Per output, and "all" of them together.
    outputs = [*what.data.state_names, "all"]
    for quantity, each in (("error", near.error), ("noise", near.noise)):
        for output, one in zip(outputs, each, strict=True):
            _add(rows, "direction", {quantity: one}, near.trajectories, At(output=output))
    middle = number(near.distance, np.nan, np.nan, near.rows, "median")
    rows.add("direction", "distance", middle)
    return True


def _add(rows: RowCollector, section: str, numbers: Judged, n: int, at: At) -> None:
    """One row per number, of n trajectories."""
    for quantity, (estimate, span) in numbers.items():
        one = number(estimate.value, span.low, span.high, n, span.method, span.se)
        rows.add(section, quantity, one, at)


def _add_policy(rows: RowCollector, residuals: Residuals, names: Sequence[str]) -> None:
    """Residuals of every action, and the p-value of all of them together."""
    n = np.full(len(names), residuals.rows)
    for quantity, value, se in (
        ("mean", residuals.mean, residuals.mean_se),
        ("spread", residuals.spread, residuals.spread_se),
    ):
        row = Estimates(value, se, value - Z * se, value + Z * se, n, "normal")
        rows.add("policy", quantity, row, At(output=names))
    nothing = np.full(len(names), np.nan)
    for quantity, value in (("distance", residuals.distance), ("explained", residuals.explained)):
        row = Estimates(value, nothing, nothing, nothing, n, "")
        rows.add("policy", quantity, row, At(output=names))
    whole = number(residuals.p_value, np.nan, np.nan, residuals.rows, "Bonferroni")
    rows.add("policy", "p_value", whole)
