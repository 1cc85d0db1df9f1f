"""Every algorithm is one row: what improves the policy, and what the critic is fitted to.

    policy   θ ← θ + β_θ Σ_i w_i(k) ∇J_i          a mixture of estimators (MPG eq. 9)
    critic   Q ← argmin (target − Q)²             MPG eq. 11, and TD3's and SAC's

A row holds no more than in what an algorithm differs; one loop runs them all. What a row is made of
are frozen values with one method each. An algorithm that needs a new part adds one in a file:

    loss      `policy_losses.PolicyLoss`: loss(context, batch, terms, weights). Entropy is inside
              the sum, at the temperature of the target; `Mixture.samples` are paths per state.
              SVG's replayed steps and paths with inferred noise are losses of their own.
    target    `targets.Target`: target(context, batch), of critics Q(s, a) or V(s). STEVE's weighted
              horizons are such a value.
    critic    `critics.CriticLoss`: loss(context, batch, critics, target). MAGE's penalty is one.
    model     `models.LearnedModel`: how it is learned and how often; None: the task's prior.
    source    `sources.Source`: source(stores, iteration) is the batch of an update: from replay,
              from a second replay that the model fills (MBPO), or the newest steps, on policy.
    targets'  `target_networks.TargetNetwork`: follow(target, live, …), of policy and critic: by τ,
    networks  a copy every k updates, or none.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from gradlab.errors import InputError
from gradlab.networks.spectral import Which
from gradlab.statistics.rules import MpgWeights
from gradlab.statistics.switching import By
from gradlab.training.critics import CriticLoss, ImportanceWeighted, MeanSquare, Q, V
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.policy_losses import (
    FromStarts,
    Mixture,
    PolicyLoss,
    ReplayedPath,
    ReplayedStep,
    Term,
)
from gradlab.training.sources import Branched, Newest, Replayed, Source
from gradlab.training.target_networks import Copied, Polyak, TargetNetwork
from gradlab.training.targets import NoCritic, NStep, OneStep, Soft, StateOneStep, Target
from gradlab.training.weights import FixedWeights, MeasuredWeights, Weights

__all__ = [
    "ALGORITHMS",
    "MIXTURE",
    "Algorithm",
    "Mixture",
    "NStep",
    "OneStep",
    "Policy",
    "Soft",
    "Term",
]

Policy = Literal["deterministic", "gaussian"]
MIXTURE = Mixture()
MEAN_SQUARE = MeanSquare()
REPLAYED = Replayed()


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
        policy_rate, value_rate: learning rates, from → to, linear in the iteration.
        clip: largest norm of a gradient; None: no limit.
        hidden, activation, batch, replay, tau: MPG Table VI unless said.
        target_policy, target_critic: how they follow (`target_networks`); None: by `tau`.
        model: how the model is learned; None: the task's prior.
        policy_spectral, critic_spectral: layers held at norm 1 while they train (RP-PGM: all of the
            policy's), or None.
        source: where batches come from.
        loss: what the terms and their weights are put into; critic_loss: what brings the critics
            to their target.
    """

    name: str
    terms: tuple[Term, ...]
    weights: Weights
    target: Target
    policy: Policy = "deterministic"
    exploration: float = 0.1
    reuse: int = 1
    delay: int = 1
    policy_rate: tuple[float, float] = (3e-4, 3e-6)
    value_rate: tuple[float, float] = (8e-4, 8e-6)
    clip: float | None = None
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "elu"
    batch: int = 256
    replay: int = 500_000
    tau: float = 0.005
    model: LearnedModel | None = None
    policy_spectral: Which | None = None
    critic_spectral: Which | None = None
    loss: PolicyLoss = MIXTURE
    critic_loss: CriticLoss = MEAN_SQUARE
    target_policy: TargetNetwork | None = None
    target_critic: TargetNetwork | None = None
    source: Source = REPLAYED

    def __post_init__(self) -> None:
        if not self.terms or len(set(self.horizons)) < len(self.horizons):
            raise InputError(f"{self.name} has terms {self.horizons}: give different horizons")
        if min(self.horizons) < 0:
            raise InputError(f"{self.name} has terms {self.horizons}: horizons start at 0")
        if isinstance(self.weights, FixedWeights):
            self.weights(0, self.horizons)
        if isinstance(self.weights, MeasuredWeights):
            self._check_measured(self.weights.follow)
        soft = self.target.soft
        unmeant = any(not term.way.every and term.horizon > 0 for term in self.terms)
        if soft != (self.policy == "gaussian") or (soft and unmeant):
            raise InputError(
                f"{self.name}: a gaussian policy, a soft target, and terms that are J_0 or have θ "
                f"in all actions go together"
            )
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError(f"{self.name} has clip {self.clip!r}, expected a positive number")
        for name in ("reuse", "delay", "batch", "replay"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{self.name} has {name} {getattr(self, name)}, expected 1 or more"
                )
        self._check_parts()
        if self.model is not None and not self.needs_model:
            raise InputError(f"{self.name} uses no model: none is learned for it")

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
        if self.loss.paths and self.horizons != (steps,):
            raise InputError(
                f"{self.name} has terms {self.horizons}, but follows the paths of its batches: "
                f"take windows of as many steps (source=Newest(steps))"
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
        if self.densities and self.policy != "gaussian":
            raise InputError(f"{self.name} weighs actions by densities: take a gaussian policy")

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
                f"{follow} is 'measured', but {self.name} has terms with θ in every action, whose "
                f"truth is another: only terms of the first action can be weighed"
            )

    @property
    def horizons(self) -> tuple[int, ...]:
        return tuple(term.horizon for term in self.terms)

    @property
    def summary(self) -> str:
        """The row in a line."""
        mixture = " + ".join(
            f"J_{term.horizon}{' (all actions)' if term.way.every else ''}" for term in self.terms
        )
        loss = "".join(f", {part.name}" for part in (self.loss, self.source) if part.name)
        learned = "" if self.model is None else f", learned model: {self.model.name}"
        return (
            f"{self.policy} policy, gradient {mixture}{loss}, critic target: {self.target.name}"
            f"{learned}"
        )

    @property
    def critics(self) -> int:
        return self.target.critics

    def rows(self, agents: int) -> int:
        """Transitions of a batch."""
        return self.source.steps * agents or self.batch

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
        rolled_out = max(self.horizons) > 0 or self.source.branching is not None
        return rolled_out or self.target.of_model


DATA, MODEL, MODEL_ALL = Term(0), Term(25), Term(25, "all")
CLIPPED = OneStep(twin=True)

ALGORITHMS: Mapping[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm("mpg-v1", (DATA, MODEL), MpgWeights(), NStep("simulator"), reuse=10, delay=2),
        Algorithm("mpg-v2", (DATA, MODEL), MpgWeights(), CLIPPED, reuse=10, delay=2),
        Algorithm(
            "mpg-general",
            (DATA, Term(5), Term(10), MODEL),
            MpgWeights(),
            CLIPPED,
            reuse=10,
            delay=2,
        ),
        Algorithm("n-step-dpg", (DATA,), FixedWeights(), NStep("simulator"), reuse=10),
        Algorithm("n-step-adp", (MODEL_ALL,), FixedWeights(), NStep("model"), reuse=10),
        Algorithm("ddpg", (DATA,), FixedWeights(), OneStep()),
        Algorithm("td3", (DATA,), FixedWeights(), OneStep(twin=True, smoothing=0.1), delay=2),
        Algorithm("sac", (DATA,), FixedWeights(), Soft(), policy="gaussian"),
        Algorithm(
            "maac",
            (Term(3, "all"),),
            FixedWeights(),
            Soft(),
            policy="gaussian",
            model=LearnedModel(),
            loss=Mixture(samples=5),
        ),
        Algorithm("bptt", (MODEL_ALL,), FixedWeights(), NoCritic(), loss=FromStarts()),
        Algorithm(
            "svg",
            (Term(1, "all"),),
            FixedWeights(),
            StateOneStep(),
            policy="gaussian",
            model=LearnedModel(),
            loss=ReplayedStep(),
            critic_loss=ImportanceWeighted(),
            target_critic=Copied(100),
        ),
        Algorithm(
            "mbpo",
            (DATA,),
            FixedWeights(),
            Soft(),
            policy="gaussian",
            model=LearnedModel(),
            source=Branched(),
        ),
        Algorithm(
            "svg-inf",
            (Term(32, "all"),),
            FixedWeights(),
            NoCritic(stochastic=True),
            policy="gaussian",
            model=LearnedModel(),
            loss=ReplayedPath(),
            source=Newest(32),
        ),
    )
}


def find(name: str) -> Algorithm:
    """The row called `name`.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    near = difflib.get_close_matches(name, ALGORITHMS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(ALGORITHMS)}"
    raise InputError(f"algorithm is {name!r}, which is not known: {hint}")


def with_horizons(algorithm: Algorithm, horizons: Sequence[int]) -> Algorithm:
    """The row with other horizons in its mixture, of the kind of its longest term.

    Raises:
        InputError: a negative horizon, or a rule without horizon 0.
    """
    if any(n < 0 for n in horizons):
        raise InputError(f"horizons are {tuple(horizons)}, expected integers from 0")
    if 0 not in horizons and isinstance(algorithm.weights, MpgWeights):
        raise InputError(f"horizons are {tuple(horizons)}: the rule of MPG needs 0 among them")
    if isinstance(algorithm.weights, FixedWeights) and len(horizons) != len(algorithm.terms):
        raise InputError(
            f"horizons are {tuple(horizons)}, but {algorithm.name} follows one gradient: mixtures "
            f"are mpg-v1, mpg-v2 and mpg-general"
        )
    kind = max(algorithm.terms, key=lambda term: term.horizon).actions
    return replace(algorithm, terms=tuple(Term(n, kind if n else "first") for n in horizons))


def measured(
    algorithm: Algorithm, weights: str = "rule", horizon: str = "rule", by: str = "mse"
) -> Algorithm:
    """The row with weights, or the horizon, that measurements have shown to be better.

    Args:
        weights, horizon: "rule", the row's own, or "measured"; one of the two.
        by: "mse" or "gain", what is better (`MeasuredWeights`).

    Raises:
        InputError: another word, both, or a row without a mixture of first-action gradients.
    """
    if by not in get_args(By):
        raise InputError(f"by is {by!r}, expected one of {get_args(By)}")
    for name, value in (("weights", weights), ("horizon", horizon)):
        if value not in ("rule", "measured"):
            raise InputError(f"{name} is {value!r}, expected 'rule' or 'measured'")
    if weights == horizon == "measured":
        raise InputError(
            "weights and horizon are both 'measured': measured weights mix all horizons, a "
            "measured horizon is followed alone: choose one"
        )
    if weights == horizon == "rule" or isinstance(algorithm.weights, MeasuredWeights):
        return algorithm
    follow = "weights" if weights == "measured" else "horizon"
    return replace(algorithm, weights=MeasuredWeights(follow, algorithm.weights, by))  # type: ignore[arg-type]


def published(algorithm: Algorithm, task: str) -> Algorithm:
    """The row with the settings of MPG's published code, where they differ from its paper:
    ten times smaller learning rates, gradients clipped at 3, batches reused by v1 alone, λ held at
    1.5, n-step DPG without exploration, and the pendulum's n-step tails clipped to [−0.5, 0].

    Its targets ignore terminal states, which is `termination="ignore"`, the papers' tasks' default.
    Left out are two slips of its asynchronous program: a target policy that begins elsewhere than
    the policy, and gradients applied again while the queue is empty.
    """
    changed = replace(
        algorithm,
        policy_rate=(3e-5, 3e-6),
        value_rate=(8e-5, 8e-6),
        clip=3.0,
        reuse=10 if algorithm.name == "mpg-v1" else 1,
    )
    if isinstance(algorithm.weights, MpgWeights):
        changed = replace(changed, weights=replace(algorithm.weights, published=True))
    if isinstance(algorithm.target, NStep) and task == "inverted_pendulum":
        changed = replace(changed, target=replace(algorithm.target, tail=(-0.5, 0.0)))
    if algorithm.name == "n-step-dpg":
        changed = replace(changed, exploration=0.0)
    return changed
