"""Slopes of all transitions of a batch at once: ∂(s′, r)/∂(s, a), [E, N, ds + 1, ds + da].

    simulator_slopes   its certified Jacobians, by one `linearize` of every step and environment
    model_slopes       those of a model's mean, at the simulator's states        (DMO; RP-DR, SVG)

No state is stepped to again: both are taken at the transitions as they were collected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.systems.system import System
from gradlab.training.models.seed_models import Model, at_mean, model_step


@torch.no_grad()
def simulator_slopes(simulator: System, batch: Batch) -> Tensor:
    """At the noise with which each transition was made, where the batch has it."""

    def rows(values: Tensor) -> Tensor:
        return values.detach().flatten(0, 1).double().cpu()

    noise = None if batch.dynamics_noise is None else rows(batch.dynamics_noise)
    at = simulator.linearize(rows(batch.state), rows(batch.action), noise)
    after = torch.cat([at.A, at.B], dim=2)
    reward = torch.cat([at.r_s, at.r_a], dim=1)
    joint = torch.cat([after, reward[:, None]], dim=1)
    return joint.to(batch.state).view(*batch.state.shape[:2], *joint.shape[1:])


def model_slopes(model: Model, batch: Batch, noise: Tensor | None) -> Tensor:
    """Of the mean of a learned model, or of any system without its noise.

    Args:
        noise: [E, N, ·], deals the members of ensembles to the rows; None: there are none.
    """
    with torch.enable_grad():
        state, action = (x.detach().clone().requires_grad_() for x in (batch.state, batch.action))
        after, reward, _ = model_step(model, state, action, at_mean(model, noise))
        outputs = torch.cat([after, reward[..., None]], dim=2)
        sweeps = [
            torch.autograd.grad(
                output.sum(), (state, action), retain_graph=True, materialize_grads=True
            )
            for output in outputs.unbind(dim=2)
        ]
    return torch.stack([torch.cat(sweep, dim=2) for sweep in sweeps], dim=2)
