"""What do the Jacobians of a learned ensemble cost, in units of one forward pass?

    python -m benchmarks.ensemble_jacobians [--rounds 9] [--threads 1]

7 members of 4×200 SiLU units, 17 states and 6 actions to 17 states and a reward, Gaussian, 1,024
samples, float32. The operation count of the Jacobians of 18 means is 18 forward passes (17.5 rows
between hidden layers and the pass itself). Contestants:
    unit          one forward pass: means and noise scales of all members
    Jacobians     of all means, in closed form; "and scales": of all noise scales too
    averaged      of means and scales, averaged over the members
    realised      what `LearnedSystem.linearize` takes: each sample by one member, at its noise
    vmap(jacrev)  torch.func over samples and members, whole and in blocks of 64 samples
    jacfwd        the same forwards
    directional   derivatives of means and scales along one direction, in closed form
    func.jvp      torch.func.jvp of the same
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import tyro
from torch import Tensor
from torch.func import jacfwd, jacrev, jvp, vmap
from torch.nn import functional

from benchmarks.all_horizons import finished
from benchmarks.side_by_side import seconds
from gradlab.networks.ensemble_jacobians import (
    along,
    averaged_jacobians,
    jacobians,
    mean_jacobians,
)
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems.learned import LearnedSystem

STATES, ACTIONS, SAMPLES, BLOCK = 17, 6, 1024, 64


def contestants(device: str = "cpu") -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    ensemble = GaussianEnsemble(STATES, ACTIONS).requires_grad_(False).to(device)
    state, action = torch.randn(SAMPLES, STATES + ACTIONS).to(device).split([STATES, ACTIONS], 1)
    direction = torch.randn(SAMPLES, 1, STATES + ACTIONS).to(device)
    learned = LearnedSystem(ensemble)
    drawn = learned.sample_noise(SAMPLES, torch.Generator().manual_seed(0), torch.float32)
    noise = drawn.to(device)
    x = torch.cat([state, action], dim=1)
    layers = ensemble.network.layers()
    parameters = (layers.weights, tuple(b[:, 0] for b in layers.biases if b is not None))

    def means(theta: tuple[tuple[Tensor, ...], tuple[Tensor, ...]], one: Tensor) -> Tensor:
        """One member's means at one sample."""
        weights, biases = theta
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            one = functional.silu(one @ weight + bias)
        return (one @ weights[-1] + biases[-1])[: ensemble.outputs]

    def by_torch(transform: Callable[..., Callable[..., Tensor]], block: int) -> Tensor:
        each = vmap(vmap(transform(means, 1), (None, 0)), (0, None))
        return torch.cat([each(parameters, part) for part in x.split(block)], dim=1)

    def pushed() -> object:
        def outputs(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
            found = ensemble(s, a)
            return found.mean, found.std

        moved = direction[:, 0].split([STATES, ACTIONS], dim=1)
        return jvp(outputs, (state, action), tuple(moved))

    chosen: dict[str, Callable[[], object]] = {
        "unit": lambda: ensemble(state, action),
        "Jacobians": lambda: mean_jacobians(ensemble, state, action),
        "and scales": lambda: jacobians(ensemble, state, action),
        "averaged": lambda: averaged_jacobians(ensemble, state, action),
        "realised": lambda: learned.linearize(state, action, noise),
        "vmap(jacrev)": lambda: by_torch(jacrev, SAMPLES),
        "in blocks": lambda: by_torch(jacrev, BLOCK),
        "jacfwd": lambda: by_torch(jacfwd, BLOCK),
        "directional": lambda: along(ensemble, state, action, direction),
        "func.jvp": pushed,
    }
    return {name: finished(run, state.device) for name, run in chosen.items()}


def main(rounds: int = 9, threads: int = 1, device: str = "cpu") -> None:
    """Print the ratios.

    Args:
        rounds: turns of each contestant.
        threads: torch threads.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    taken = seconds(contestants(device), rounds)
    print(f"{threads} thread(s), {rounds} rounds; unit: {1e3 * taken['unit']:.1f} ms")
    for name in list(taken)[1:]:
        print(f"{name:13}{taken[name] / taken['unit']:6.2f} units")
    for peer in ("vmap(jacrev)", "in blocks"):
        print(f"Jacobians take {taken['Jacobians'] / taken[peer]:.2f} of {peer}")


if __name__ == "__main__":
    tyro.cli(main)
