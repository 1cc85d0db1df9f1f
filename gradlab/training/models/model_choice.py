"""Choices of a model that is learned while a policy trains: the value of `Algorithm.model`."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab import validation
from gradlab.errors import InputError
from gradlab.fitting import derivative_losses
from gradlab.fitting.derivative_losses import named_loss
from gradlab.fitting.losses import Loss
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import OwnNetwork, check_network

# One neighbour a step, all of them in turn: a step costs two or three of the likelihood's, not ten.
LOSSES = {name: named_loss(name, directions=1) for name in derivative_losses.LOSSES}
LIKELIHOOD = LOSSES["nll"]


@dataclass(frozen=True)
class LearnedModel:
    """A probabilistic ensemble per seed, fitted to that seed's replay.

    Attributes:
        loss: what it is fitted by.
        two_models: states from a model fitted by `states`, Jacobians from one fitted by `loss`
            (DDPPO); False: one model for both.
        states: what the first of two models is fitted by.
        spectral: layers held at norm 1 (RP-PGM: all but the last), or None.
        members: per seed, one drawn for every step of a rollout.
        elites: how many of them rollouts draw from, those of least held-out loss in the last fit
            (MBPO: 5 of 7); None: all.
        bootstrap: every fit draws each member a sample of the rows, as many with replacement, and
            its batches from that (PETS, MBPO, MAAC); False: batches from all rows.
        hidden, activation: of every member.
        network: type of model, as in `ModelSettings`.
        every: iterations between two fits.
        first_steps, steps: of Adam in the first fit and in each later one.
        warm_start: go on from the last fit; False: from fresh networks, by `first_steps`.
        rows: transitions per seed, the latest, that a fit uses; None: all in replay.
        batch: rows per step and member.
    """

    loss: Loss = LIKELIHOOD
    two_models: bool = False
    states: Loss = LIKELIHOOD
    spectral: spectral.Which | None = None
    members: int = 5
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"
    network: str | OwnNetwork = "gaussian"
    every: int = 250
    first_steps: int = 2000
    steps: int = 1000
    warm_start: bool = True
    rows: int | None = None
    batch: int = 256
    learning_rate: float = 1e-3
    elites: int | None = None
    bootstrap: bool = False

    def __post_init__(self) -> None:
        check_network(self.network)
        for name in ("members", "every", "first_steps", "steps", "batch"):
            validation.whole(f"model's {name}", getattr(self, name), 1)
        for width in self.hidden:
            validation.whole("model's hidden", width, 1)
        if self.rows is not None:
            validation.whole("model's rows", self.rows, 1)
        if self.elites is not None and self.elites not in range(1, self.members + 1):
            raise validation.expected(
                "model's elites", self.elites, f"1 to its {self.members} members, or None for all"
            )
        validation.number("model's learning_rate", self.learning_rate, above=0)
        if not hasattr(self.loss, "bind"):
            names = ", ".join(LOSSES)
            raise InputError(f"model has loss {self.loss!r}, expected one of {names}, or a Loss")

    @property
    def used(self) -> int:
        """Members that rollouts draw from, per seed."""
        return self.members if self.elites is None else self.elites

    @property
    def roles(self) -> dict[str, Loss]:
        """What is fitted, by what: one model, or DDPPO's two."""
        if self.two_models:
            return {"prediction": self.states, "gradient": self.loss}
        return {"prediction": self.loss}

    @property
    def name(self) -> str:
        """Such as "dd", "nll, spectral norm", "two models (nll, dd)"."""
        both = f"two models ({self.states.name}, {self.loss.name})"
        fitted = both if self.two_models else self.loss.name
        return fitted + ("" if self.spectral is None else ", spectral norm")
