"""`compare_remedies`: is a remedy worth it? Models with and without it, on the same everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from gradlab.data.trajectories import Trajectories
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.model_settings import ModelSettings
from gradlab.hooks import Progress, silent
from gradlab.remedies.arms import DEFAULT
from gradlab.remedies.run import Remedies
from gradlab.tasks import Task

SETTINGS = ModelSettings(members=1, hidden=(64, 64), bootstrap=False, epochs=40, patience=None)
DIRECTIONAL = DirectionalDerivative(directions=1)


def compare_remedies(
    task: Task,
    policy: nn.Module,
    critic: nn.Module | None,
    output: Path,
    arms: Sequence[str] = DEFAULT,
    *,
    data: Trajectories | None = None,
    rows: int = 3000,
    settings: ModelSettings = SETTINGS,
    gradient_loss: DirectionalDerivative = DIRECTIONAL,
    trials: int = 5,
    horizon: int | None = None,
    starts: int = 64,
    batch: int = 256,
    seed: int = 0,
    costs: Mapping[str, float] | None = None,
    command: str = "",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Remedies:
    """Fit every arm in every trial, measure it, and write `output` anew after each trial.

    Args:
        output: NAME.h5; models lie beside it in NAME-models/, a fitted one is never fitted again.
        arms: see `remedies.arms`.
        data: a record that every trial is fitted to; None: each trial records `rows` of its own.
        settings: of the baseline, and of every arm but for what it changes.
        gradient_loss: of "dd" and "two-model".
        trials: seeds of fit (and data).
        horizon: largest of the gradients and steps of the predictions; None: the task's.
        starts: per trial, of gradients and of the path that Jacobians are compared on.
        batch: at which mean squared errors are stated.
        costs: seconds of a step of each arm in steps of the baseline; None: measured.
        resume: go on with `output`.

    Raises:
        InputError: names the argument or the arm, what it got and what to do.
    """
    raise NotImplementedError
