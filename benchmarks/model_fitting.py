"""What does fitting a model cost: members at once, directional derivatives, neighbours?

    python -m benchmarks.model_fitting [--rounds 7] [--threads 2] [--device cpu]

7 members of 4×200 SiLU units, Hopper's 11 states and 3 actions to 11 states and a reward, batches
of 256 rows per member, float32, 5,000 rows. A turn is one training step; contestants take turns and
ratios are of medians, by the clock and by processor time, which does not see who else computes.
    batched       one step of 7 members in one program
    apart         the same step of 7 ensembles of one member, one after another
    limit         the matrix products alone (forward and both backward), batched and apart
    dd K          a step with the directional loss along K of 10 neighbours
    published     the same along 1 of them in the form of DDPPO's published code: the whole Jacobian
                  by one backward pass per output, then its product with v
    neighbours    one search for the 10 nearest of all rows, and its share of a fit of 30 epochs
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
import tyro
from torch import Tensor

from benchmarks.side_by_side import clocks
from gradlab.data.trajectories import Trajectories, from_rows
from gradlab.fitting.derivative_losses import DirectionalDerivative, Neighbours
from gradlab.fitting.fitted import Descent
from gradlab.fitting.losses import Bound, Loss, OneStepError, StandardisedRows, outputs, predicted
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.fitting.models import prepared
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.products import fast_products

STATES, ACTIONS, ROWS, NEAR, EPOCHS = 11, 3, 5000, 10, 30


def record() -> Trajectories:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    state, action = normal(ROWS, STATES), normal(ROWS, ACTIONS)
    after = state + 0.1 * torch.tanh(state @ normal(STATES, STATES))
    return from_rows(state, action, normal(ROWS), after, torch.zeros(ROWS).bool())


def step(settings: ModelSettings, loss: Loss) -> Callable[[], None]:
    """One training step on a fixed batch."""
    descent, _ = prepared(record(), settings, loss)
    return _turn(descent, descent.training)


def _turn(descent: Descent, bound: Bound) -> Callable[[], None]:
    at = descent.sample[:, : descent.batch].contiguous()

    def run() -> None:
        descent.adam.zero_grad()
        torch.autograd.backward(bound.value(descent.ensemble, at, 0).sum())
        descent.adam.step()
        if at.is_cuda:
            torch.cuda.synchronize()

    return run


def published(settings: ModelSettings) -> Callable[[], None]:
    """Eq. 9 as DDPPO's code takes it: J by a backward pass per output, kept for a second one."""
    loss = DirectionalDerivative(NEAR, directions=1)
    descent, _ = prepared(record(), settings, loss)
    near = torch.arange(ROWS, device=settings.device).roll(1)  # any one neighbour costs the same

    def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
        rows: StandardisedRows = descent.rows
        here = rows.inputs[at].requires_grad_()
        mean, log_variance = outputs(ensemble, here)
        jacobian = torch.stack(
            [
                torch.autograd.grad(mean[..., k].sum(), here, create_graph=True)[0]
                for k in range(mean.shape[2])
            ],
            dim=2,
        )
        other = near[at]
        moved = torch.einsum("enoi,eni->eno", jacobian, rows.inputs[other] - here.detach())
        error = (moved - (rows.targets[other] - rows.targets[at])).square().mean(dim=(1, 2))
        return predicted("nll", ensemble, mean, log_variance, rows.targets[at]) + error

    return _turn(descent, replace(descent.training, value=value))


def products(members: int, times: int, settings: ModelSettings) -> Callable[[], None]:
    """The products of a step: x W, and its two derivatives, for every layer."""
    sizes = [STATES + ACTIONS, *settings.hidden, 2 * (STATES + 1)]
    place = dict(device=settings.device)
    pairs = [
        (
            torch.randn(members, settings.batch, first, **place),
            torch.randn(members, first, second, **place),
            torch.randn(members, settings.batch, second, **place),
        )
        for first, second in pairwise(sizes)
    ]

    def run() -> None:
        for _ in range(times):
            for x, weight, back in pairs:
                torch.bmm(x, weight)
                torch.bmm(back, weight.mT)
                torch.bmm(x.mT, back)
        if settings.device != "cpu":
            torch.cuda.synchronize()

    return run


def search() -> None:
    data = record()
    near = Neighbours(NEAR, torch.ones(STATES + ACTIONS).numpy(), torch.get_num_threads())
    near.add(torch.cat([data.state, data.action], dim=1).double().numpy())


def contestants(settings: ModelSettings) -> dict[str, Callable[[], object]]:
    alone = [
        step(replace(settings, members=1, first_member=k), OneStepError())
        for k in range(settings.members)
    ]

    def apart() -> None:
        for each in alone:
            each()

    return {
        "batched": step(settings, OneStepError()),
        "apart": apart,
        "limit batched": products(settings.members, 1, settings),
        "limit apart": products(1, settings.members, settings),
        "dd 1": step(settings, DirectionalDerivative(NEAR, directions=1)),
        f"dd {NEAR}": step(settings, DirectionalDerivative(NEAR)),
        "published": published(settings),
        "neighbours": search,
    }


def main(rounds: int = 7, threads: int = 2, device: str = "cpu") -> None:
    """Print the ratios.

    Args:
        rounds: turns of each contestant.
        threads: torch threads.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    settings = replace(MBPO, device=device)
    with fast_products(device):  # as a fit descends
        taken = clocks(contestants(settings), rounds)
    wall, processor = ({name: each[k] for name, each in taken.items()} for k in (0, 1))
    step_ms = 1e3 * wall["batched"]
    print(f"{threads} thread(s) on {device}, {rounds} rounds; NLL step: {step_ms:.1f} ms")
    print(f"{'ratios by':32}{'clock':>8}{'processor':>12}")

    def line(text: str, ratio: Callable[[Mapping[str, float]], float], note: str = "") -> None:
        print(f"{text:32}{ratio(wall):8.2f}{ratio(processor):12.2f}  {note}")

    line("members one after another", lambda t: t["apart"] / t["batched"], "promised ≥ 1.3")
    line("  their matrix products alone", lambda t: t["limit apart"] / t["limit batched"])
    line("  products' share of a step", lambda t: t["limit batched"] / t["batched"])
    line("dd 1", lambda t: t["dd 1"] / t["batched"], "promised ≤ 3")
    most = 1.5 * (1 + NEAR)
    line(f"dd {NEAR}", lambda t: t[f"dd {NEAR}"] / t["batched"], f"promised ≤ {most:g}")
    line("published form of dd 1", lambda t: t["published"] / t["batched"])
    steps = EPOCHS * math.ceil(0.9 * ROWS / settings.batch)

    def share(t: Mapping[str, float]) -> float:
        return t["neighbours"] / (t["neighbours"] + steps * t["dd 1"])

    line(f"neighbours in {steps} steps of dd 1", share, "promised ≤ 0.1")


if __name__ == "__main__":
    tyro.cli(main)
