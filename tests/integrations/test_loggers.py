"""W&B and trackio get the rows that a function gets, failures as alerts, and the run's page."""

from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.integrations.loggers import to_tensorboard, to_trackio, to_wandb


class Run:
    """What W&B's and trackio's runs are asked for, in one."""

    def __init__(self):
        self.rows: list[tuple[dict[str, float], int | None]] = []
        self.alerts: list[tuple[str, str, int | None]] = []
        self.artifacts: list[tuple[str, str, str]] = []
        self.metrics: dict[str, str] = {}

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics[name] = step_metric

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((metrics, step))

    def alert(self, title: str, text: str, step: int | None = None) -> None:
        self.alerts.append((title, text, step))

    def log_artifact(self, path: str, name: str, type: str) -> None:
        self.artifacts.append((Path(path).read_text(), name, type))


def blocked(*logs: Any) -> None:
    """A loop whose first layer gets no gradient, which is a failure."""
    torch.manual_seed(0)
    first, last = nn.Linear(3, 4), nn.Linear(4, 1)
    policy = nn.Sequential(first, last)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=logs)
    for step in range(0, 1200, 10):
        optimizer.zero_grad()
        with probe(step):
            last(first(torch.randn(8, 3)).detach()).mean().backward()
        optimizer.step()
    probe.close()


@pytest.mark.parametrize("to_run", [to_wandb, to_trackio])
def test_a_run_gets_the_rows_of_a_function_alerts_and_the_page(tmp_path, capsys, to_run):
    run, rows = Run(), []
    blocked(tmp_path / "run.h5", to_run(run), rows.append)
    known = [
        ({f"gradlab/{k}": v for k, v in row.items() if k not in ("step", "update")
          and not isinstance(v, str) and isfinite(v)}, row["step"])
        for row in rows if "findings/title" not in row
    ]  # fmt: skip
    found = run.rows
    if to_run is to_wandb:  # whose own steps only rise
        assert run.metrics == {"gradlab/*": "gradlab/step"}
        found = [(row, int(row.pop("gradlab/step"))) for row, _ in run.rows]
    assert found == known and len(known) > 2
    assert [title for title, *_ in run.alerts] == ["own steps", "dead path"]
    _, (_, text, step) = run.alerts
    assert "The gradient of 0.weight, 0.bias was exactly 0" in text
    assert step == 490 or text.startswith("step 490: ")  # the last of the first fifty updates
    ((page, *named),) = run.artifacts
    assert "<html" in page and "dead path" in page and named == ["gradlab-report", "report"]


@pytest.mark.parametrize("to_place", [to_tensorboard, to_wandb, to_trackio])
def test_what_cannot_log_is_refused(to_place):
    with pytest.raises(InputError, match="is a dict, expected that of"):
        to_place({})
