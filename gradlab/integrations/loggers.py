"""The probe's rows in TensorBoard, Weights & Biases and trackio.

    probe = gradlab.Probe(policy, optimizer, log=["run.h5", to_wandb(run)])

Numbers come at the loop's own step, without what is not finite; failures as text or alerts; the
page of the run file, once the probe is closed, as an artefact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, final

from gradlab.errors import InputError, imported

_COUNTS = ("step", "update")
_Numbers = Mapping[str, float]


@final
class Logger:
    """A log function of `gradlab.Probe`.

    Args:
        numbers: of a row, by name, at a step; alert: title and message of a failure, at a step.
        page: gets the path of the run's page, if there is one, when the probe is closed.
    """

    def __init__(
        self, numbers: Callable[[_Numbers, int], object],
        alert: Callable[[str, str, int], object], page: Callable[[Path], object] | None = None,
    ) -> None:  # fmt: skip
        self._numbers, self._alert, self._page = numbers, alert, page

    def __call__(self, row: Mapping[str, Any]) -> None:
        """A row of the probe: numbers, or a failure."""
        step = int(row["step"])
        if "findings/title" in row:
            self._alert(row["findings/title"], str(row["findings/message"]), step)
            return
        known = {
            name: float(value) for name, value in row.items()
            if name not in _COUNTS and not isinstance(value, str) and isfinite(value)
        }  # fmt: skip
        self._numbers(known, step)

    def finish(self, path: Path) -> None:
        """The run file at `path` is complete."""
        if self._page is not None:
            self._page(imported("gradlab.reporting.output:report")(path, quiet=True))


def to_tensorboard(writer: Any, prefix: str = "gradlab") -> Logger:
    """Numbers as scalars, failures as text.

    Args:
        writer: `torch.utils.tensorboard.SummaryWriter`, tensorboardX's, or anything like them; it
            stays the caller's, who also closes it.
        prefix: of every tag: "gradlab/vitals/grad_norm".

    Raises:
        InputError: the writer cannot write.
    """
    _check("writer", writer, "SummaryWriter(folder)", "add_scalar", "add_text")

    def numbers(known: _Numbers, step: int) -> None:
        for name, value in known.items():
            writer.add_scalar(f"{prefix}/{name}", value, step)

    return Logger(
        numbers, lambda title, text, step: writer.add_text(f"{prefix}/findings/{title}", text, step)
    )


def to_wandb(run: Any, prefix: str = "gradlab") -> Logger:
    """Numbers over a step of their own, so that the loop's logging goes on as it would; failures as
    alerts.

    Args:
        run: of `wandb.init(…)`, to be finished after the probe is closed.

    Raises:
        InputError: it is none.
    """
    _check("run", run, "wandb.init(…)", "define_metric", "log", "alert", "log_artifact")
    at = f"{prefix}/step"
    run.define_metric(f"{prefix}/*", step_metric=at)
    return Logger(
        lambda known, step: run.log({f"{prefix}/{k}": v for k, v in known.items()} | {at: step}),
        lambda title, text, step: run.alert(title, f"step {step}: {text}"),
        lambda page: run.log_artifact(str(page), name=f"{prefix}-report", type="report"),
    )


def to_trackio(run: Any, prefix: str = "gradlab") -> Logger:
    """Numbers at the loop's step, failures as alerts.

    Args:
        run: of `trackio.init(…)`, to be finished after the probe is closed.

    Raises:
        InputError: it is none.
    """
    _check("run", run, "trackio.init(…)", "log", "alert", "log_artifact")
    return Logger(
        lambda known, step: run.log({f"{prefix}/{k}": v for k, v in known.items()}, step=step),
        lambda title, text, step: run.alert(title, text, step=step),
        lambda page: run.log_artifact(str(page), name=f"{prefix}-report", type="report"),
    )


def _check(argument: str, given: Any, expected: str, *methods: str) -> None:
    if not all(callable(getattr(given, name, None)) for name in methods):
        raise InputError(f"{argument} is a {type(given).__name__}, expected that of {expected}")
