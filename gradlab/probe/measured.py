"""Bias and variance on the task while training goes on: a small `measure` of copies.

    shared truth → data, model, mixed, true_dynamics by horizon → choice;   a fresh path of the
    simulator under the policy → Lyapunov exponent, the model's Jacobian error, the critic's size

Each measurement draws starts and noise of its own from (seed, number of the update), so that rows
are independent given the policy. Its price is known before it is made: `prices`, then from the last
measurement of its kind.

The truth is compared with finite differences, which is most of its price, in measurements number
1, 2, 4, 8, …, and in each that follows a truth which did not stand. What they can find, Jacobians
of the simulator that are not those of its steps, is a matter of the simulator around the states
that are visited, and these move little between two measurements.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from gradlab.data.noise import child
from gradlab.gradients.start_laws import visitation
from gradlab.measurement.chosen import estimators_at
from gradlab.measurement.problem import starts_of
from gradlab.measurement.shared_truth import SharedTruth, shared_truth
from gradlab.probe.isolation import doubled, undisturbed
from gradlab.probe.measured_path import along, fresh_path, units
from gradlab.probe.measured_profile import gradients, rounding
from gradlab.probe.task_question import Past, Question
from gradlab.runs.probe.schema import ESTIMATORS

STARTS = 64
SOUND = ("converged", "imprecise")


def measured(
    question: Question, policy: nn.Module, batch: int, update: int, past: Past
) -> tuple[dict[str, Any], Past]:
    """One row of the table "measured", and what the next one has to know.

    Args:
        batch: N′ of the loop's own batches.
    """
    with undisturbed():
        task, seed = question.task, child(question.seed, f"probe {update}")
        copy = doubled(policy)
        critic = None if question.critic is None else doubled(question.critic)
        row: dict[str, Any] = {"starts": STARTS, "batch": batch, "discount": task.discount}
        sound = True
        if critic is not None:
            # Where updates take their gradients: the matched truth there is that of the return.
            states = visitation(task, copy, STARTS, seed)
            truth = shared_truth(
                task, copy, states, question.horizon, batch, seed=seed, check=past.checks
            )
            sound = truth.reference.status in SOUND
            row |= _of_gradients(truth, critic, question.horizon, past.checks)
        linear = fresh_path(task, copy, starts_of(task, STARTS, seed), seed)
        scale = units(linear) if past.scale is None else past.scale
        row |= along(task, linear, critic, past.reward_max, scale)
        return row, Past(row["reward_max"], scale, past.count + 1, sound)


def _of_gradients(
    truth: SharedTruth, critic: nn.Module, horizon: int, thorough: bool
) -> dict[str, Any]:
    chosen = estimators_at(truth.task, critic, None, horizon)
    row = gradients(truth, chosen, ESTIMATORS)
    return row | rounding(truth, chosen) if thorough else row
