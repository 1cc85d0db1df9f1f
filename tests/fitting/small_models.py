"""Small models and records that tests of losses share."""

import torch
from torch import Tensor

from gradlab.data.trajectories import Trajectories
from gradlab.fitting.losses import Bound, StandardisedRows, split, standardised
from gradlab.networks.gaussian_ensemble import GaussianEnsemble


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rows_of(record: Trajectories, residual: bool = True, reward: bool = True) -> StandardisedRows:
    everyone = torch.arange(len(record))
    return standardised(
        record, everyone, residual=residual, reward=reward, dtype=torch.float64, device="cpu"
    )[0]


def model(
    rows: StandardisedRows, hidden: tuple[int, ...] = (10,), members: int = 2
) -> GaussianEnsemble:
    ds, out = rows.record.state.shape[1], rows.targets.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = GaussianEnsemble(
            ds, rows.record.action.shape[1], members, hidden, "tanh", rows.residual, out > ds
        )
    made.double().set_normalisers(
        rows.input_mean, rows.input_std, rows.target_mean, rows.target_std
    )
    return made


def everywhere(bound: Bound, ensemble: GaussianEnsemble, turn: int = 0) -> Tensor:
    return bound.value(ensemble, bound.rows.expand(ensemble.members, -1), turn)


def halves(record: Trajectories) -> tuple[Tensor, Tensor]:
    return split(record, 0.2, 0)
