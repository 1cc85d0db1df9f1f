"""Small ensembles, and draws for them."""

import torch
from torch import Tensor

from gradlab.networks.gaussian_ensemble import GaussianEnsemble, predict

N, DS, DA = 40, 3, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def model(
    state_dim: int = DS, action_dim: int = DA, members: int = 4, reward: bool = True
) -> GaussianEnsemble:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = GaussianEnsemble(state_dim, action_dim, members, (12, 12), reward=reward).double()
    width = state_dim + reward
    made.set_normalisers(
        random(state_dim + action_dim),
        random(state_dim + action_dim, seed=1).abs() + 0.5,
        0.1 * random(width, seed=2),
        random(width, seed=3).abs() + 0.1,
    )
    return made


def by_jacrev(ensemble: GaussianEnsemble, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """∂μ_k/∂[s, a] and ∂σ_k/∂[s, a], [E, N, out, ds + da], by torch.func."""

    def one(x: Tensor) -> tuple[Tensor, Tensor]:
        found = predict(ensemble.numbers(x), x[None])
        return found.mean[:, 0], found.std[:, 0]

    x = torch.cat([state, action], 1)
    mean, std = torch.func.vmap(torch.func.jacrev(one), out_dims=1)(x)
    return mean.detach(), std.detach()
