"""One horizon with exact variance: gradlab beside vmap, Opacus and BackPACK.

    pip install --no-deps opacus backpack-for-pytorch einops unfoldNd opt_einsum
    python -m benchmarks.peers [--rounds 5] [--threads 1]

Unit: one backpropagation through time (path tracking's prior, H 25, N 256, tanh 2×256, float32).
Each peer is asked for the mean gradient and every sample's squared norm. What is not installed or
cannot do it says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from benchmarks.all_horizons import Case, backpropagate, cases, finished
from benchmarks.side_by_side import seconds
from gradlab.gradients.bptt import mean_and_squared_norms
from gradlab.gradients.named import model_driven
from gradlab.gradients.starts import as_starts
from gradlab.networks.mlp import Policy, QCritic

Pair = tuple[Tensor, Tensor]


def contestants(case: Case, device: str = "cpu") -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model, gamma, H = case.task.prior, case.task.discount, case.horizon
    assert model is not None
    sizes, scale = (model.state_dim, model.action_dim), case.task.observation_scale
    policy, critic = (
        kind(*sizes, activation="tanh", scale=scale).to(device) for kind in (Policy, QCritic)
    )
    s0 = case.task.starts(case.batch, torch.Generator().manual_seed(0)).float().to(device)
    starts, estimator = as_starts(s0, sizes[0]), model_driven(model, critic, gamma, H)
    noise = [starts.dynamics_noise(model, 0, t) for t in range(H)]

    def returns(act: Callable[[Tensor], Tensor], s: Tensor, xi: list[Tensor]) -> Tensor:
        total = s.new_zeros(len(s))
        for t in range(H):
            a = act(s)
            out = model.step(s, a, xi[t])
            total, s = total + gamma**t * out.reward, out.state
        return total + gamma**H * critic(s, act(s))

    def by_vmap() -> Pair:
        theta = {name: p.detach() for name, p in policy.named_parameters()}

        def one(theta: dict[str, Tensor], s: Tensor, xi: Tensor) -> Tensor:
            act = lambda state: functional_call(policy, theta, (state,))  # noqa: E731
            return returns(act, s[None], list(xi[:, None]))[0]

        found = vmap(grad(one), in_dims=(None, 0, 1))(theta, s0, torch.stack(noise))
        return summary([g.flatten(1) for g in found.values()])

    found: dict[str, Callable[[], object]] = {
        "unit": lambda: backpropagate(model, policy, policy, critic, s0, H, gamma),
        "gradlab": lambda: mean_and_squared_norms(estimator, policy, starts),
        "vmap": by_vmap,
    }
    found |= _opacus(policy, returns, s0, noise) | _backpack(policy, returns, s0, noise)
    return {name: finished(run, s0.device) for name, run in found.items()}


def summary(samples: list[Tensor]) -> Pair:
    """Mean and squared norms of explicit per-sample gradients, parameter by parameter."""
    mean = torch.cat([g.mean(dim=0) for g in samples])
    return mean, torch.stack([g.square().sum(dim=1) for g in samples]).sum(dim=0)


Returns = Callable[[Callable[[Tensor], Tensor], Tensor, list[Tensor]], Tensor]


def _opacus(
    policy: nn.Module, returns: Returns, s0: Tensor, noise: list[Tensor]
) -> dict[str, Callable[[], object]]:
    try:
        from opacus import GradSampleModule
    except ImportError as error:
        print(f"Opacus: not installed ({error})")
        return {}
    wrapped = GradSampleModule(copy.deepcopy(policy), loss_reduction="sum")

    def run() -> Pair:
        wrapped.zero_grad()
        returns(wrapped, s0, noise).sum().backward()
        samples = []
        for p in wrapped.parameters():
            parts = p.grad_sample if isinstance(p.grad_sample, list) else [p.grad_sample]
            samples.append(torch.stack(list(parts)).sum(dim=0).flatten(1))
            p.grad_sample = None
        return summary(samples)

    return {"Opacus": run}


def _backpack(
    policy: nn.Module, returns: Returns, s0: Tensor, noise: list[Tensor]
) -> dict[str, Callable[[], object]]:
    try:
        from backpack import backpack, extend
        from backpack.extensions import BatchGrad
    except ImportError as error:
        print(f"BackPACK: not installed ({error})")
        return {}
    extended = extend(copy.deepcopy(policy))

    def run() -> Pair:
        extended.zero_grad()
        with backpack(BatchGrad()):
            returns(extended, s0, noise).sum().backward()
        return summary([p.grad_batch.flatten(1) for p in extended.parameters()])

    return {"BackPACK": run}


def agree(found: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Only contestants whose norms are gradlab's; the others are named."""
    _, want = found["gradlab"]()  # type: ignore[misc]
    kept = {name: found[name] for name in ("unit", "gradlab")}
    for name in found.keys() - kept.keys():
        try:
            _, norms = found[name]()  # type: ignore[misc]
        except Exception as error:
            print(f"{name}: cannot do this ({type(error).__name__}: {str(error)[:90]})")
            continue
        gap = float(((norms - want).abs() / want).max())
        if gap < 1e-2:
            kept[name] = found[name]
        else:
            print(
                f"{name}: wrong norms, off by up to {gap:.2g} (the last call of each layer only?)"
            )
    return kept


def main(case: str = "C1", rounds: int = 5, threads: int = 1, device: str = "cpu") -> None:
    """Print times in units.

    Args:
        case: C1 or C2 of `benchmarks.all_horizons`.
        rounds: turns of each contestant.
        threads: torch threads.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    taken = seconds(agree(contestants(cases()[case], device)), rounds)
    print(f"{case}, {threads} thread(s): unit {1e3 * taken['unit']:.1f} ms")
    for name in list(taken)[1:]:
        print(f"{name:9}{taken[name] / taken['unit']:6.2f} units")


if __name__ == "__main__":
    tyro.cli(main)
