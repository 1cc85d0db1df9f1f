"""Every variable of the files, with unit and description, as the runs themselves say them.

The runs are the smallest ones: a linear-quadratic task, eight starts, three updates.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

import gradlab
from gradlab.runs.run import Run
from gradlab.tasks import linear_quadratic

HEAD = """# Every variable

What the files of the most used kinds of runs contain ([files](../files.md)), by group. Other kinds
are described in the same way, by `units` and `description` of their arrays.
"""


def write(folder: Path) -> None:
    """Writes variables.md."""
    sections = [f"## {title}\n\n{tables(run)}" for title, run in runs()]
    (folder / "variables.md").write_text("\n".join([HEAD, *sections]))


def runs() -> Iterator[tuple[str, Run]]:
    """A measurement, a training and a probe."""
    torch.manual_seed(0)
    task = linear_quadratic(discount=0.8)
    system = task.simulator
    policy = torch.nn.Linear(system.state_dim, system.action_dim, dtype=torch.float64)
    torch.nn.init.zeros_(policy.weight)

    def critic(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return -state.square().sum(1) - action.square().sum(1)

    yield (
        "A measurement: `gradlab measure`",
        gradlab.measure(task, policy, critic, horizon=1, starts=8, judges=8, attribute=True),
    )
    with tempfile.TemporaryDirectory() as here:
        path, log = Path(here, "train.h5"), Path(here, "probe.h5")
        gradlab.train("td3", task, path, iterations=2)
        yield "A training: `gradlab train`", gradlab.load(path)
        optimizer = torch.optim.Adam(policy.parameters())
        probe = gradlab.Probe(policy, optimizer, log=log)
        for step in range(3):
            optimizer.zero_grad()
            with probe(step):
                policy(torch.ones(4, system.state_dim).double()).square().mean().backward()
            optimizer.step()
        with contextlib.redirect_stderr(io.StringIO()):  # what it cost
            probe.close()
        yield "A probe: `gradlab.Probe`", gradlab.load(log)


def tables(run: Run) -> str:
    """A table for each group that holds arrays."""
    made = []
    for node in run.tree.subtree:
        rows = [
            f"| `{name}` | {', '.join(map(str, each.dims))} | {each.attrs.get('units', '')} "
            f"| {str(each.attrs.get('description', '')).replace('|', chr(92) + '|')} |\n"
            for name, each in node.variables.items()
        ]
        if rows:
            head = "| variable | over | unit | what it is |\n|---|---|---|---|\n"
            made.append(f"**{node.path.strip('/')}**\n\n{head}{''.join(rows)}\n")
    return "".join(made)
