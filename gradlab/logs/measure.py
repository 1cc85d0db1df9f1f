"""`measure_logs`: the policy gradient through a learned model, measured on recorded trajectories.

There is no simulator, hence no truth. The score-function gradient of the recorded returns is
unbiased and noisy. Its noise is measured first; then the model's gradient is compared with it on
the same trajectories, horizon by horizon. Where the noise leaves the comparison undecided, the
result is the number of further trajectories that would decide.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import nn

from gradlab import provenance
from gradlab.data.trajectories import Trajectories
from gradlab.gradients.other_critics import Critics
from gradlab.jacobians.rows import Rows
from gradlab.logs.arguments import Arguments, Span, check_fitting, checked
from gradlab.logs.comparing import add_gradients
from gradlab.logs.critic import judged, return_bound
from gradlab.logs.direction import directional
from gradlab.logs.on_policy import refuse_far, residuals
from gradlab.logs.prediction import prediction
from gradlab.logs.refits import halves, refitted
from gradlab.logs.table import add_critic, add_directions, add_policy, add_prediction
from gradlab.logs.windows import Windows, windows
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.logs import LogsRun
from gradlab.systems.system import System
from gradlab.user_code.grad_mode import differentiating

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
    fit_critics: int = 0,
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
        fit_critics: without a critic, how many to fit to every other trajectory; the rest is
            measured on (see `logs.refits`).
        settings: recorded in the file.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do; data of another policy.
    """
    begun = time.monotonic()
    progress = check_progress(progress)
    if fit_critics:
        check_fitting(data, critic, fit_critics)
        fitted_on, data = halves(data)
        critic = refitted(fitted_on, discount, fit_critics, seed, progress)
    span = Span(discount, horizon, reach, every)
    what = checked(data, policy, model, critic, span, noise_std, seed)
    rows = Rows()
    notes = _on_policy(rows, what)
    cut = windows(data, what.reach, every)
    notes |= _windows(cut, what)
    add_gradients(rows, what, cut, progress)
    for k, network in enumerate(what.critics):
        tested = judged(network, cut.path, discount)
        add_critic(rows, f"critic {k + 1}", tested, cut.trajectories)
    if what.model is not None:
        progress("model", 0, 1)
        notes |= _model(rows, what, what.model, cut)
        progress("model", 1, 1)
    about: dict[str, object] = {
        "policy": type(policy).__name__,
        "policy_hash": provenance.network_hash(policy),
    }
    about |= {
        "fitted_critics": fit_critics,
        "noise_std": noise_std,
        "model": None if model is None else type(model).__name__,
    }
    environment = provenance.environment() | {
        "precision": "float64",
        "wall_seconds": f"{time.monotonic() - begun:.1f}",
    }
    config = _config(what, cut) | about | dict(settings or {})
    names = data.state_names, data.action_names
    return LogsRun(rows.columns, *names, config, environment, notes)


def _config(what: Arguments, cut: Windows) -> dict[str, object]:
    return {
        "trajectories": cut.trajectories,
        "windows": cut.path.states.shape[1],
        "transitions": len(what.data),
        "discount": what.discount,
        "horizon": what.horizons[-1],
        "horizons": list(what.horizons),
        "reach": what.reach,
        "every": what.every,
        "critics": len(what.critics),
        "stochastic": what.stochastic,
        "seed": what.seed,
    }


def _on_policy(rows: Rows, what: Arguments) -> dict[str, object]:
    """Residuals of the policy's own noise; refuses data of another policy."""
    if not what.stochastic:
        return {}
    statistics = residuals(what.policy, what.data.state.double(), what.data.action.double())
    assert statistics is not None
    refuse_far(statistics, what.data.action_names)
    add_policy(rows, statistics, what.data.action_names)
    return {"on_policy": statistics.on_policy}


def _windows(cut: Windows, what: Arguments) -> dict[str, object]:
    low, high = return_bound(cut.path, what.discount)
    return {
        "left_out": cut.left_out,
        "ended": cut.ended,
        "remainder": what.discount**what.reach,
        "return_bound": [low, high],
    }


def _model(rows: Rows, what: Arguments, model: System, cut: Windows) -> dict[str, object]:
    """The model's own derivatives and predictions, on these data."""
    near = directional(what.data, model, what.seed)
    if near is not None:
        add_directions(rows, near, what.data.state_names)
    ahead = prediction(cut.path.cut(what.horizons[-1]), model)
    add_prediction(rows, ahead)
    return {
        "neighbours": near is not None,
        "prediction_lost": ahead.lost,
        "growth": None if ahead.growth is None else ahead.growth.condition,
    }
