"""One row of the table of algorithms: which parts there are, and which of them go together.

policy   θ ← θ + β_θ Σ_i w_i(k) ∇J_i          a mixture of estimators (MPG eq. 9)
critic   Q ← argmin (target − Q)²             MPG eq. 11, and TD3's and SAC's

Choices of a model that is learned while a policy trains: the value of `Algorithm.model`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gradlab import validation
from gradlab.errors import InputError
from gradlab.fitting import derivative_losses
from gradlab.fitting.derivative_losses import named_loss
from gradlab.fitting.losses import Loss
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import OwnNetwork, check_network
from gradlab.networks.spectral import Which
from gradlab.options import COUNT, Within, check
from gradlab.training.parts.context import (
    FixedWeights,
    MeasuredWeights,
    Passes,
    Replayed,
    Source,
    Weights,
)
from gradlab.training.parts.critics import (
    CriticLoss,
    MeanSquare,
    Polyak,
    Q,
    Target,
    TargetNetwork,
    V,
)
from gradlab.training.parts.duals import Automatic, Stiffness
from gradlab.training.parts.policy_losses import MixtureLoss, PolicyLoss, Term

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
    members: COUNT = 5
    hidden: tuple[COUNT, ...] = (64, 64)
    activation: str = "silu"
    network: str | OwnNetwork = "gaussian"
    every: COUNT = 250
    first_steps: COUNT = 2000
    steps: COUNT = 1000
    warm_start: bool = True
    rows: COUNT | None = None
    batch: COUNT = 256
    learning_rate: Annotated[float, Within(above=0)] = 1e-3
    elites: int | None = None
    bootstrap: bool = False

    def __post_init__(self) -> None:
        check_network(self.network)
        check(self, "model's {}".format)
        if self.elites is not None and self.elites not in range(1, self.members + 1):
            raise validation.expected(
                "model's elites", self.elites, f"1 to its {self.members} members, or None for all"
            )
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


Policy = Literal["deterministic", "gaussian"]
_MIXTURE = MixtureLoss()
_MEAN_SQUARE = MeanSquare()
_REPLAYED = Replayed()
_ONCE = Passes()


@dataclass(frozen=True)
class Algorithm:
    """One row of the table.

    Attributes:
        terms, weights: the mixture of policy gradients and how it is weighted (`measured`).
        target: what the critic is fitted to.
        policy: "deterministic", limit · tanh of a network, or "gaussian", squashed likewise.
        exploration: std of the noise on collected actions, in units of the limit (a Gaussian
            policy explores by itself).
        reuse: consecutive updates on one batch and its targets.
        delay: critic updates to one update of policy and target networks.
        updates: critic updates for every transition that a seed collects, where the algorithm has
            a number of its own; None: as settings have it (`Settings.interval`).
        policy_rate, value_rate: learning rates, from → to, linear in the iteration; a network of
            rate 0 stays as it begins.
        clip: largest norm of a gradient; None: no limit.
        hidden, activation, batch, replay, tau: MPG Table VI unless said.
        target_policy, target_critic: how they follow (`target_networks`); None: by `tau`.
        model: how the model is learned; None: the task's prior.
        policy_spectral, critic_spectral: layers held at norm 1 while they train (RP-PGM: all of the
            policy's), or None.
        source: where batches come from.
        paper: where it is from, with the section.
        loss: what the terms and their weights are put into; critic_loss: what brings the critics
            to their target, and fit: in how many steps for each batch.
        log_std: bounds of log σ of a Gaussian policy.
        adaptive: how on-policy horizons follow the simulator's stiffness; None: the terms'.
    """

    name: str
    terms: tuple[Term, ...]
    weights: Weights
    target: Target
    policy: Policy = "deterministic"
    exploration: Annotated[float, Within(0)] = 0.1
    reuse: COUNT = 1
    delay: COUNT = 1
    policy_rate: Annotated[tuple[float, float], Within(0)] = (3e-4, 3e-6)
    value_rate: Annotated[tuple[float, float], Within(0)] = (8e-4, 8e-6)
    clip: Annotated[float | None, Within(above=0)] = None
    hidden: tuple[COUNT, ...] = (256, 256)
    activation: str = "elu"
    batch: COUNT = 256
    replay: COUNT = 500_000
    tau: Annotated[float, Within(above=0, most=1)] = 0.005
    model: LearnedModel | None = None
    policy_spectral: Which | None = None
    critic_spectral: Which | None = None
    loss: PolicyLoss = _MIXTURE
    critic_loss: CriticLoss = _MEAN_SQUARE
    target_policy: TargetNetwork | None = None
    target_critic: TargetNetwork | None = None
    source: Source = _REPLAYED
    updates: COUNT | None = None
    fit: Passes = _ONCE
    adaptive: Stiffness | None = None
    log_std: tuple[float, float] = (-5.0, 2.0)
    paper: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for misfit, words in _MISFITS:
            if misfit(self):
                raise InputError(f"{self.name} has {words.format(row=self)}")
        if isinstance(self.weights, FixedWeights):
            self.weights(0, self.horizons)
        check(self, lambda field: f"{self.name}'s {field}")
        if not isinstance(self.target.temperature, Automatic):
            validation.number("temperature", self.target.temperature, least=0)
        if self.model is not None and not self.needs_model:
            raise InputError(f"{self.name} uses no model: none is learned for it")

    @property
    def horizons(self) -> tuple[int, ...]:
        return tuple(term.horizon for term in self.terms)

    @property
    def critics(self) -> int:
        return self.target.critics

    @property
    def described(self) -> dict[str, str]:
        """What the row is made of, by part, and where it is from."""
        mixture = " + ".join(
            f"J_{term.horizon}{' (all actions)' if term.way.all_actions else ''}"
            for term in self.terms
        )
        cut = "" if self.adaptive is None else self.adaptive.name
        gradient = ", ".join(filter(None, (mixture, self.loss.name, cut)))
        parts = (self.target.name, self.critic_loss.name, self.fit.name, self._entropy)
        sized = self.source.steps or self.batch == Algorithm.batch
        return {
            "policy": self.policy + ("" if self.policy_spectral is None else ", spectral norm"),
            "gradient": gradient,
            "target": ", ".join(filter(None, parts)),
            "model": self._model_described,
            "data": (self.source.name or "replay")
            + ("" if sized else f", batches of {self.batch}"),
            "source": self.paper,
        }

    @property
    def _entropy(self) -> str:
        alpha = self.target.temperature
        if not self.target.soft:
            return ""
        if isinstance(alpha, Automatic):
            return "α automatic"
        return f"α {alpha:g}" if alpha else "no entropy"

    @property
    def _model_described(self) -> str:
        if self.model is None:
            return "the task's prior" if self.needs_model else "no model"
        hidden = self.model.hidden
        widths = "" if hidden == LearnedModel.hidden else f", hidden {', '.join(map(str, hidden))}"
        return f"learned model: {self.model.name}{widths}"

    def rows(self, agents: int) -> int:
        """Transitions of a batch."""
        rows = self.source.steps * agents
        if rows > self.replay:
            raise InputError(
                f"{self.name} takes windows of {self.source.steps} steps of {agents} agents, but "
                f"its replay holds {self.replay} transitions"
            )
        return rows or self.batch

    @property
    def densities(self) -> bool:
        """Whether replay keeps those of the actions."""
        return self.loss.densities or self.critic_loss.densities

    @property
    def following(self) -> dict[str, TargetNetwork]:
        """How the target of policy and critic follows."""
        plain = Polyak(self.tau)
        return {"policy": self.target_policy or plain, "critic": self.target_critic or plain}

    @property
    def needs_model(self) -> bool:
        return self.rolls_out or self.critic_needs_model

    @property
    def rolls_out(self) -> bool:
        """Whether the policy's gradient goes through a model."""
        return max(self.horizons) > 0 and not self.loss.of_simulator

    @property
    def critic_needs_model(self) -> bool:
        """Whether it stands behind the critic: in its data, its target or its loss."""
        branched = self.source.branching is not None
        return branched or self.target.of_model or self.critic_loss.of_model

    @property
    def differentiates_model(self) -> bool:
        return self.rolls_out or self.critic_loss.of_model


def _measured(row: Algorithm) -> bool:
    return isinstance(row.weights, MeasuredWeights)


def _cut_short(row: Algorithm) -> bool:
    """Does it follow the paths of its batches, which are no whole number of its horizon?"""
    steps, horizon = row.source.steps, row.horizons[0]
    whole = steps > 0 and horizon > 0 and steps % horizon == 0
    return row.loss.paths and (len(row.terms) > 1 or not whole)


# What does not go together, and how to say it after "NAME has"; the first that holds is said.
_MISFITS: tuple[tuple[Callable[[Algorithm], object], str], ...] = (
    (
        lambda row: not row.terms or len(set(row.horizons)) < len(row.terms),
        "terms {row.horizons}: give different horizons",
    ),
    (lambda row: min(row.horizons) < 0, "terms {row.horizons}: horizons start at 0"),
    (
        lambda row: _measured(row) and (row.target.kind != Q or not row.critics),
        "measured {row.weights.follow}, but no critic of actions to measure with",
    ),
    (
        lambda row: _measured(row) and len(row.terms) < 2,
        "measured {row.weights.follow}, but it follows one gradient: mixtures are mpg-v1, mpg-v2 "
        "and mpg-general, of any horizons, or terms of your own",
    ),
    (
        lambda row: _measured(row) and any(term.way.all_actions for term in row.terms),
        "measured {row.weights.follow}, but terms with θ in every action, which have another "
        "truth: give terms of the first action alone",
    ),
    (
        lambda row: row.target.soft and row.policy != "gaussian",
        "policy {row.policy!r}, which has no entropy, but a target for stochastic ones "
        "({row.target.name}): take policy='gaussian', or target=OneStep()",
    ),
    (
        lambda row: row.policy == "gaussian" and not row.target.soft,
        "policy 'gaussian', but a target for deterministic ones ({row.target.name}): take "
        "policy='deterministic', or target=Soft()",
    ),
    (
        lambda row: (
            row.policy == "gaussian"
            and any(term.horizon and not term.way.all_actions for term in row.terms)
        ),
        "policy 'gaussian', but θ in the first action alone at horizons of {row.horizons}: give "
        "these terms θ in all actions (Term(n, 'all'))",
    ),
    (lambda row: not row.hidden, "no hidden layer: give widths"),
    (
        lambda row: (
            len(row.log_std) != 2 or not -math.inf < row.log_std[0] < row.log_std[1] < math.inf
        ),
        "log_std {row.log_std}: give two finite numbers, the smaller first",
    ),
    (
        lambda row: row.loss.horizon is not None and row.horizons != (row.loss.horizon,),
        "terms {row.horizons}, but its loss ({row.loss.name}) follows horizon {row.loss.horizon} "
        "alone",
    ),
    (
        lambda row: row.source.steps and row.reuse > 1,
        "reuse {row.reuse}, but an on-policy batch is new",
    ),
    (
        _cut_short,
        "terms {row.horizons}, but follows the paths of its batches: take windows of as many "
        "steps, or of a multiple (source=Newest(steps))",
    ),
    (
        lambda row: not row.critics and (0 in row.horizons or row.critic_spectral is not None),
        "no critic: take horizons from 1, and no spectral norm of critics",
    ),
    (
        lambda row: row.target.kind == V and 0 in row.horizons,
        "horizon 0, but its critic is {row.target.kind.name}, in which actions do not occur: take "
        "horizons from 1",
    ),
    (
        lambda row: row.critic_loss.of_model and (row.target.kind != Q or not row.critics),
        "a critic loss ({row.critic_loss.name}) that differentiates critics by actions: take a "
        "target of Q(s, a)",
    ),
    (
        lambda row: row.target.of_members and (row.model is None or row.model.used < 2),
        "targets ({row.target.name}) that weigh horizons by how far the members of a learned "
        "model differ: learn one of 2 members or more (model=LearnedModel(members=5) in its row), "
        "or take another target",
    ),
    (
        lambda row: row.densities and row.policy != "gaussian",
        "a loss that weighs actions by densities: take a gaussian policy",
    ),
    (
        lambda row: row.target.of_paths and not row.source.steps,
        "a target along paths: take source=Newest(steps)",
    ),
    (
        lambda row: row.critics and row.loss.amended not in (None, row.target.kind == Q),
        "critics of {row.target.kind.name}, but its loss ({row.loss.name}) takes others: take "
        "StateLambda(actions={row.loss.amended})",
    ),
    (
        lambda row: row.loss.noises and row.policy == "deterministic" and row.exploration,
        "exploration {row.exploration}, but follows its own actions: take exploration=0, or "
        "policy='gaussian'",
    ),
    (
        lambda row: row.adaptive is not None and not row.loss.of_simulator,
        "a horizon that adapts to stiffness, but its loss differentiates no simulator: take "
        "loss=WindowReturn(), or adaptive=None",
    ),
    (
        lambda row: not (row.fit.once or row.critics),
        "no critic to be fitted in {row.fit.name}",
    ),
)
