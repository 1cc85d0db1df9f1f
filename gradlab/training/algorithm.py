"""One row of the table of algorithms: which parts there are, and which of them go together.

policy   θ ← θ + β_θ Σ_i w_i(k) ∇J_i          a mixture of estimators (MPG eq. 9)
critic   Q ← argmin (target − Q)²             MPG eq. 11, and TD3's and SAC's

Choices of a model that is learned while a policy trains: the value of `Algorithm.model`.
"""

from __future__ import annotations

import math
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
from gradlab.training.parts.context import FixedWeights, MeasuredWeights, Passes, Weights
from gradlab.training.parts.critics import CriticLoss, MeanSquare, Q, Target, V
from gradlab.training.parts.duals import Automatic, Stiffness
from gradlab.training.parts.policy_losses import MixtureLoss, PolicyLoss, Term
from gradlab.training.parts.sources import Replayed, Source
from gradlab.training.parts.targets import Polyak, TargetNetwork

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
MIXTURE = MixtureLoss()
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
    loss: PolicyLoss = MIXTURE
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
        if not self.terms or len(set(self.horizons)) < len(self.horizons):
            raise InputError(f"{self.name} has terms {self.horizons}: give different horizons")
        if min(self.horizons) < 0:
            raise InputError(f"{self.name} has terms {self.horizons}: horizons start at 0")
        if isinstance(self.weights, FixedWeights):
            self.weights(0, self.horizons)
        if isinstance(self.weights, MeasuredWeights):
            self._check_measured(self.weights.follow)
        self._check_policy()
        check(self, lambda field: f"{self.name}'s {field}")
        validation.whole(f"{self.name}'s hidden", len(self.hidden), 1)
        if not (
            len(self.log_std) == 2 and -math.inf < self.log_std[0] < self.log_std[1] < math.inf
        ):
            wanted = "two finite numbers, the smaller first"
            raise validation.expected(f"{self.name}'s log_std", self.log_std, wanted)
        if not isinstance(self.target.temperature, Automatic):
            validation.number("temperature", self.target.temperature, least=0)
        self._check_parts()
        if self.model is not None and not self.needs_model:
            raise InputError(f"{self.name} uses no model: none is learned for it")

    def _check_policy(self) -> None:
        """Raises InputError where policy, target and terms are not all stochastic, or none is."""
        stochastic, target = self.policy == "gaussian", self.target.name
        if self.target.soft and not stochastic:
            raise InputError(
                f"{self.name} has policy {self.policy!r}, which has no entropy, but a target for "
                f"stochastic ones ({target}): take policy='gaussian', or target=OneStep()"
            )
        if stochastic and not self.target.soft:
            raise InputError(
                f"{self.name} has policy 'gaussian', but a target for deterministic ones "
                f"({target}): take policy='deterministic', or target=Soft()"
            )
        single = [term.horizon for term in self.terms if term.horizon and not term.way.every]
        if stochastic and single:
            raise InputError(
                f"{self.name} has policy 'gaussian', but θ in the first action alone at horizons "
                f"{single}: give these terms θ in all actions (Term(n, 'all'))"
            )

    def _check_parts(self) -> None:
        """Raises InputError where loss, terms and critics do not go together."""
        only = self.loss.horizon
        if only is not None and self.horizons != (only,):
            raise InputError(
                f"{self.name} has terms {self.horizons}, but its loss ({self.loss.name}) follows "
                f"horizon {only} alone"
            )
        steps = self.source.steps
        if steps and self.reuse > 1:
            raise InputError(f"{self.name} has reuse {self.reuse}, but an on-policy batch is new")
        whole = steps > 0 and self.horizons[0] > 0 and steps % self.horizons[0] == 0
        if self.loss.paths and (len(self.terms) > 1 or not whole):
            raise InputError(
                f"{self.name} has terms {self.horizons}, but follows the paths of its batches: "
                f"take windows of as many steps, or of a multiple (source=Newest(steps))"
            )
        if self.critics == 0 and (0 in self.horizons or self.critic_spectral is not None):
            raise InputError(
                f"{self.name} has no critic: take horizons from 1, and no spectral norm of critics"
            )
        if self.target.kind == V and 0 in self.horizons:
            raise InputError(
                f"{self.name} has horizon 0, but its critic is {V.name}, in which actions do not "
                f"occur: take horizons from 1"
            )
        if self.critic_loss.of_model and (self.target.kind != Q or self.critics == 0):
            raise InputError(
                f"{self.name} has a critic loss ({self.critic_loss.name}) that differentiates "
                f"critics by actions: take a target of Q(s, a)"
            )
        if self.target.of_members and (self.model is None or self.model.used < 2):
            raise InputError(
                f"{self.name} has targets ({self.target.name}) that weigh horizons by how far the "
                f"members of a learned model differ: learn one of 2 members or more "
                f"(model=LearnedModel(members=5) in its row), or take another target"
            )
        if self.densities and self.policy != "gaussian":
            raise InputError(f"{self.name} weighs actions by densities: take a gaussian policy")
        self._check_windows()

    def _check_windows(self) -> None:
        """Raises InputError where what follows on-policy windows has none, or not its own."""
        if self.target.of_paths and not self.source.steps:
            raise InputError(f"{self.name} has a target along paths: take source=Newest(steps)")
        amended = getattr(self.loss, "amended", None)  # of a window's return
        if amended is not None and self.critics and amended != (self.target.kind == Q):
            raise InputError(
                f"{self.name} has critics of {self.target.kind.name}, but its loss "
                f"({self.loss.name}) takes {'Q(s, a)' if amended else 'V(s)'}: take "
                f"StateLambda(actions={amended})"
            )
        if self.loss.noises and self.policy == "deterministic" and self.exploration:
            raise InputError(
                f"{self.name} has exploration {self.exploration}, but follows its own actions: "
                f"take exploration=0, or policy='gaussian'"
            )
        if self.adaptive is not None and not self.loss.of_simulator:
            raise InputError(
                f"{self.name} adapts its horizon to stiffness, but its loss differentiates no "
                f"simulator: take loss=WindowReturn(), or adaptive=None"
            )
        if self.fit != _ONCE and self.critics == 0:
            raise InputError(f"{self.name} has no critic to be fitted in {self.fit.name}")

    def _check_measured(self, follow: str) -> None:
        if self.target.kind != Q or self.critics == 0:
            raise InputError(
                f"{follow} is 'measured', but {self.name} has no critic of actions to measure with"
            )
        if len(self.terms) < 2:
            raise InputError(
                f"{follow} are 'measured', but {self.name} follows one gradient: mixtures are "
                f"mpg-v1, mpg-v2 and mpg-general, of any horizons, or terms of your own"
                if follow == "weights"
                else f"horizon is 'measured', but {self.name} has one horizon: take mpg-v1, mpg-v2 "
                f"or mpg-general, with the horizons to choose from"
            )
        if any(term.way.every for term in self.terms):
            raise InputError(
                f"{follow} is 'measured', but {self.name} has terms with θ in every action, which "
                f"have another truth: give terms of the first action alone"
            )

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
            f"J_{term.horizon}{' (all actions)' if term.way.every else ''}" for term in self.terms
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
