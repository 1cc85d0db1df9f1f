"""Where the probe's rows can go: a run file, TensorBoard, any function of a dict, all at once.

    pip install -c constraints.txt '.[tensorboard]'
    python examples/anywhere.py FOLDER
    tensorboard --logdir FOLDER/tensorboard

Any `log(dict)` will do: `to_wandb(run)`, say, or the function below, which keeps a CSV of the
gradient's norm. The loop is plain torch: a policy climbs a critic that it is given.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import gradlab
from gradlab.integrations.loggers import to_tensorboard


def main(folder: Path, steps: int = 2_000) -> gradlab.Probe:
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1), nn.Tanh())
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    folder.mkdir(parents=True, exist_ok=True)
    writer = SummaryWriter(folder / "tensorboard")
    with open(folder / "norms.csv", "w", newline="") as file:
        table = csv.writer(file)

        def norms(row: dict[str, Any]) -> None:
            if "vitals/grad_norm" in row:
                table.writerow([row["step"], row["vitals/grad_norm"]])

        log = [folder / "run.h5", to_tensorboard(writer), norms]
        probe = gradlab.Probe(policy, optimizer, log=log)
        for step in range(steps):
            state = torch.randn(64, 2)
            value = -((policy(state) - torch.sin(state[:, :1])) ** 2)
            optimizer.zero_grad()
            with probe(step):
                (-value.mean()).backward()
            optimizer.step()
        probe.close()
    writer.close()
    print(f"{folder}: run.h5, norms.csv, tensorboard; the probe took {probe.spent:.1%} of the time")
    return probe


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "anywhere"))
