"""A model of a task, fitted to 4,000 rows of the exploring policy and at random."""

from dataclasses import replace

from gradlab.data import trajectories
from gradlab.data.noise import child
from gradlab.fitting import ModelSettings, collect, fit_model
from gradlab.fitting.collection import exploring
from gradlab.tasks import with_learned_prior

SETTINGS = ModelSettings(members=3, epochs=60)


def with_model(task, policy, critic, hidden, seed):
    """Task with the model as its prior, policy, critic."""
    rows = [
        collect(task, 2000, by, length=50, seed=child(seed, f"board rows {k}"))
        for k, by in enumerate((exploring(task, policy, [0.3] * task.simulator.action_dim), None))
    ]
    settings = replace(SETTINGS, hidden=hidden, seed=child(seed, "board model") >> 1)
    fitted = fit_model(trajectories.joined(rows), settings)
    return with_learned_prior(task, fitted.ensemble), policy, critic
