"""Logs and a learned model, and no simulator: up to which horizon do the logs support the model?

    python examples/logs_and_a_model.py [FOLDER]

A cart is pushed along a rail; the policy that pushed it and its noise are known, and what happened
was logged. A quarter of the episodes is for fitting a small torch network, the rest for judging the
policy gradient through it. The page of documentation is logs-and-a-model.md beside this file.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import gradlab
from gradlab.data.trajectories import from_rows
from gradlab.networks.policies import Gaussian
from gradlab.tools.logs.compute import measure_logs

NOISE = 0.3  # standard deviation that was added to the policy's actions [m/s²]
EPISODES, STEPS, DISCOUNT = 800, 40, 0.95


def logged(policy: nn.Module) -> dict[str, np.ndarray]:
    """What a machine wrote down: rows of transitions, episode by episode."""
    random = np.random.default_rng(0)
    state = random.normal(size=(EPISODES, 2))
    columns = {name: [] for name in ("state", "action", "reward", "next_state")}
    for _ in range(STEPS):
        with torch.no_grad():
            wanted = policy(torch.as_tensor(state)).numpy()
        action = wanted + NOISE * random.normal(size=(EPISODES, 1))
        position, speed = state.T
        push = action[:, 0] - 0.3 * np.tanh(4 * speed) + 0.1 * random.normal(size=EPISODES)
        following = np.stack([position + 0.1 * speed, speed + 0.1 * push], axis=1)
        row = state, action, -(state**2).sum(axis=1) - 0.1 * action[:, 0] ** 2, following
        for name, values in zip(columns, row, strict=True):
            columns[name].append(values)
        state = following
    found = {name: np.stack(each, axis=1) for name, each in columns.items()}
    rows = {name: each.reshape(-1, *each.shape[2:]) for name, each in found.items()}
    rows["terminated"] = np.zeros(EPISODES * STEPS, dtype=bool)
    return rows | {"episode": np.repeat(np.arange(EPISODES), STEPS)}


def fitted(rows: dict[str, np.ndarray]) -> nn.Module:
    """A small network for the change of the state."""
    torch.manual_seed(0)
    inputs, target = (
        torch.as_tensor(each, dtype=torch.float32)
        for each in (
            np.concatenate([rows["state"], rows["action"]], axis=1),
            10 * (rows["next_state"] - rows["state"]),
        )
    )
    network = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(600):
        batch = torch.randint(len(inputs), (256,))
        loss = (network(inputs[batch]) - target[batch]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.double().eval()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    policy = nn.Linear(2, 1, bias=False).double()
    nn.init.constant_(policy.weight, -0.8)
    rows = logged(policy)
    train = rows["episode"] < EPISODES // 4
    network = fitted({name: each[train] for name, each in rows.items()})
    np.savez(folder / "judged.npz", **{name: each[~train] for name, each in rows.items()})

    # The reward is known here; a model of it may take its place.
    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following = state + 0.1 * network(torch.cat([state, action], dim=1))
        return following, -state.square().sum(dim=1) - 0.1 * action[:, 0].square()

    model = gradlab.systems.from_function(step, state_dim=2, action_dim=1)
    held = {name: torch.as_tensor(each[~train]) for name, each in rows.items()}
    run = measure_logs(
        from_rows(**held, state_names=("position", "speed"), action_names=("push",)),
        Gaussian(policy, NOISE),
        model,
        discount=DISCOUNT,
        horizon=20,
    )
    for finding in run.findings:
        print(finding.mark, finding.said)
    print(gradlab.report(run.save(folder / "logs.h5", overwrite=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/logs-example"))
