"""A run file of training with known curves, written as training writes it."""

import json

import numpy as np

from gradlab.storage.journal import Journal
from gradlab.storage.journal_tables import Column, Table

RETURNS = np.array(
    [[-90.0, -95, -80, -99, -500], [-29, -40, -31, -20, -600], [-9, -4, -3, -50, -1]]
)


def written(
    path, name="mpg-v2", task="path_tracking", returns=RETURNS, event=None, reward_scale=0.01,
    given=(),
):  # fmt: skip
    """A run file with known curves, written as training writes it."""
    per_seed = Column(("seed",))
    updates = ("critic_loss", "value", "critic_norm", "policy_loss", "policy_norm", "nonfinite")
    seeds = tuple(range(returns.shape[1]))
    scales = {"seed": seeds, "horizon": (0, 25), "coordinate": (0, 1)}
    tables = {
        "updates": Table(
            "iteration",
            {
                **dict.fromkeys(updates, per_seed),
                "weight": Column(("horizon",)),
                **dict.fromkeys(
                    ("realised_horizon", "policy_seconds", "critic_seconds", "seconds"), Column()
                ),
            },
            {"seed": seeds, "horizon": (0, 25)},
        ),
        "evaluations": Table(
            "iteration",
            {
                **dict.fromkeys(("return_mean", "return_se", "ends"), per_seed),
                "rms": Column(("seed", "coordinate")), "seconds": Column(),
            },
            {name: scales[name] for name in ("seed", "coordinate")},
        ),
        "events": Table("number", {"message": Column(text=True)}),
    }  # fmt: skip
    settings = {
        "evaluation_starts": 50, "episode": 200, "at_end": "restart", "termination": "ignore",
        "reward_scale": reward_scale, "precision": "float32",
    }  # fmt: skip
    config = {"algorithm": {"name": name}, "task": task, "settings": settings}
    config |= {"given_networks": dict.fromkeys(given, "its hash")} if given else {}
    about = {"kind": "training", "config": json.dumps(config), "environment": "{}"}
    with Journal(path, tables, about) as journal:
        for k, values in enumerate(returns):
            at = {"iteration": 3000 * k, "seconds": 10.0 * k}
            row = {"return_mean": values, "return_se": 1 + 0 * values, "ends": 0 * values}
            journal.append("evaluations", {**at, **row, "rms": np.ones((len(seeds), 2))})
            made = {"weight": np.array([0.2, 0.8]), "policy_seconds": 0.05, "critic_seconds": 0.02}
            made["realised_horizon"] = (25, 25, 12.5)[k]
            journal.append("updates", {**at, **dict.fromkeys(updates, values), **made})
        if event:
            journal.append("events", {"number": 0, "message": event})
    return path
