"""A policy gradient as one frozen value: four choices.

    states     who produces s_0, s_1, …
    jacobians  who is differentiated along those states: A, B, r_s and r_a
    actions    which actions carry θ: "first" (MPG eq. 6), "all" (MPG eq. 5, BPTT), or "score",
               the likelihood ratio, which differentiates no dynamics; "ivw", "ddcg" and "total" mix
               both (`gradients.weighted_terms`)
    tail       horizon n, discount and the critic that values s_n

n = 0 is the deterministic policy gradient J_0; `dataclasses.replace` makes the next estimator.
Gradients ascend Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n), θ flattened in `policy.parameters()` order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import Path
from gradlab.errors import InputError
from gradlab.gradients.setting import Starts, Tail, as_starts
from gradlab.gradients.trajectory import UNCUT, GradientStop, TermRequest
from gradlab.gradients.ways import WAYS, Name, TruthName, Way
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.networks.interface import check_critic, check_policy, check_trainable, double_copy
from gradlab.networks.mlp import CriticLike, as_critic, same_critic
from gradlab.networks.policies import SoftCritic, WithLogProb, temperature
from gradlab.systems.system import Entropic, Recorded, System, check_system
from gradlab.user_code import differentiating

TERMINATIONS = ("ignore", "mask")
BLOCK = 1024  # samples at once
_PRECISIONS = {torch.float32, torch.float64}


@dataclass(frozen=True)
class Estimator:
    """states × jacobians × actions × tail.

    Attributes:
        states: a system, or `systems.system.Recorded` for a path of recorded trajectories.
        jacobians: a system; None where horizon is 0 and for actions "score".
        entropy: temperature α of the soft return Σ γᵗ (r_t − α log π_t) (SAC, MAAC, DDPPO eq. 11).
        cut: derivatives of the path that are taken as zero (`gradients.trajectory`).
        replay: whose visited states actions "replayed" begin at; None for all others.
    """

    states: System
    jacobians: System | None
    actions: Name
    tail: Tail
    entropy: float = 0.0
    cut: GradientStop = UNCUT
    replay: System | None = None

    def __post_init__(self) -> None:
        check_system("states", self.states)
        if self.jacobians is not None:
            check_system("jacobians", self.jacobians)
        validation.word("actions", self.actions, tuple(WAYS))
        validation.instance("tail", self.tail, Tail, "a Tail(horizon, critic, discount)")
        if not self.way.differentiates and self.jacobians is not None:
            raise InputError(
                f"actions is {self.actions!r}, which differentiates no system: jacobians=None"
            )
        if self.jacobians is None and self.tail.horizon > 0 and self.way.differentiates:
            raise InputError(
                f"jacobians is None but horizon is {self.tail.horizon}: only horizon 0 needs none"
            )
        temperature(self.entropy)
        if self.entropy and not self.way.pathwise:
            raise InputError("entropy is for pathwise gradients: use actions 'first' or 'all'")
        if self.way.mixed and isinstance(self.states, Recorded):
            raise InputError(
                f"actions is {self.actions!r}, whose weights are fitted to paths with other noise, "
                f"but states are recorded: give a system, or use actions 'all' or 'score'"
            )
        for name in ("state_dim", "action_dim") if self.jacobians is not None else ():
            if getattr(self.jacobians, name) != getattr(self.states, name):
                raise InputError(
                    f"jacobians has {name} {getattr(self.jacobians, name)}, states has "
                    f"{getattr(self.states, name)}: both must use the task's one coordinate"
                )
        validation.instance(
            "cut", self.cut, GradientStop, "a GradientStop(transition, decay, stop)"
        )
        if self.cut and self.jacobians is None:
            raise InputError(
                f"cut is {self.cut}, but nothing is differentiated along the path: give jacobians "
                f"and actions that use them, or leave cut out"
            )
        if (self.actions == "replayed") != (self.replay is not None):
            raise InputError(
                f"actions is {self.actions!r} and replay is {validation.shown(self.replay)}: "
                f"'replayed' needs the system whose visited states it begins at, no other has one"
            )
        if self.replay is not None and not self.tail.discount < 1:
            raise InputError("discount is 1: states are replayed by their discounted visitation")
        if self.tail.horizon == 0 and first_horizon(self) > 0:
            raise InputError(
                "horizon is 0, which leaves no θ to differentiate: it needs a Q critic and an "
                "attached terminal action"
            )

    @property
    def way(self) -> Way:
        """Which actions carry θ, and how."""
        return WAYS[self.actions]

    @property
    def truth(self) -> TruthName:
        """The true gradient that is estimated, "first" or "all"."""
        return self.way.truth

    def _begun(
        self, policy: nn.Module, starts: Tensor | Path | Starts, seed: int, termination: str
    ) -> tuple[Estimator, nn.Module, Starts]:
        """Checked and of one dtype, the entropy as a part of the action."""
        validation.whole("seed", seed)
        estimator, policy, starts = _in_one_dtype(self, policy, starts)
        begin = checked(estimator, policy, starts, termination)
        return (*with_entropy(estimator, policy), begin)

    @differentiating
    def gradients(
        self,
        policy: nn.Module,
        starts: Tensor | Path | Starts,
        seed: int = 0,
        termination: str = "ignore",
    ) -> Tensor:
        """Per-sample ascent gradients, [N, P]; in float64, on copies, where dtypes differ."""
        plain, policy, begin = self._begun(policy, starts, seed, termination)
        asked = TermRequest(policy, begin, (self.tail.horizon,), seed, termination)
        terms = costate_terms(plain, asked)
        return terms.jacobian.gradients(terms.costates[0])

    @differentiating
    def mean_gradient(
        self,
        policy: nn.Module,
        starts: Tensor | Path | Starts,
        seed: int = 0,
        termination: str = "ignore",
    ) -> Tensor:
        """Mean ascent gradient over the starts, [P], as of `gradients`; samples are taken in
        blocks."""
        plain, policy, begin = self._begun(policy, starts, seed, termination)
        n, total = len(begin.states), begin.states.new_zeros(1)
        for rows in begin.blocks(BLOCK):
            asked = TermRequest(policy, rows, (self.tail.horizon,), seed, termination)
            terms = costate_terms(plain, asked)
            total = total + terms.sums()[0] / n
        return total


def _in_one_dtype(
    estimator: Estimator, policy: nn.Module, starts: Tensor | Path | Starts
) -> tuple[Estimator, nn.Module, Tensor | Path | Starts]:
    """Networks and starts of one precision as they are; else all of them in float64."""
    networks = [
        module for module in (policy, estimator.tail.critic) if isinstance(module, nn.Module)
    ]
    dtypes = {p.dtype for network in networks for p in network.parameters()}
    if isinstance(starts, Tensor | Path | Starts):
        dtypes |= {starts.dtype if isinstance(starts, Tensor) else starts.states.dtype}
    if not dtypes <= _PRECISIONS or len(dtypes) < 2:
        return estimator, policy, starts
    tail = replace(estimator.tail, critic=copy.deepcopy(estimator.tail.critic))
    if tail.critic is not None:
        tail.critic.double()
    if isinstance(starts, Starts):
        starts = replace(starts, states=starts.states.double(), weight=starts.weight.double())
    else:
        starts = starts.double()
    place = next(policy.parameters(), torch.zeros(())).device
    own = double_copy("policy", policy).to(place)
    return replace(estimator, tail=tail), own, starts


def checked(
    estimator: Estimator, policy: nn.Module, starts: Tensor | Path | Starts, termination: str
) -> Starts:
    """The door of every evaluation: starts, policy, critic and termination fit the estimator.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    if not isinstance(estimator, Estimator):
        kind = type(estimator).__name__
        raise InputError(
            f"estimator is a {kind}, expected an Estimator (measure a mixture's parts)"
        )
    if termination not in TERMINATIONS:
        raise InputError(f"termination is {termination!r}, expected one of {TERMINATIONS}")
    begin = as_starts(starts, estimator.states.state_dim)
    check_policy(policy, begin.states, estimator.states.action_dim)
    check_trainable(policy)
    tail = estimator.tail
    if tail.critic is not None:
        check_critic(tail.critic, tail.value, begin.states, estimator.states.action_dim)
    return begin


def first_horizon(estimator: Estimator) -> int:
    """0, or 1 where horizon 0 would leave no θ to differentiate."""
    tail = estimator.tail
    carries = not estimator.way.all_actions or tail.terminal_action == "attached"
    return 0 if tail.critic is not None and tail.value == "Q" and carries else 1


def with_entropy(
    estimator: Estimator, policy: nn.Module, wrap: Callable[[System], System] | None = None
) -> tuple[Estimator, nn.Module]:
    """The same gradient without an entropy term: of ã = (a, log π), whose reward is r − α log π.

    Augmented systems (`Entropic`) and critic, and the policy that gives log π as its last
    action; unchanged where the entropy is 0.

    Args:
        wrap: `augmenting(α)`, where several estimators must keep sharing their systems.
    """
    if not estimator.entropy:
        return estimator, policy
    alpha, tail = estimator.entropy, estimator.tail
    augment = augmenting(alpha) if wrap is None else wrap
    critic = tail.critic
    if critic is not None and tail.value == "Q":
        critic = SoftCritic(critic, alpha)
    soft = replace(
        estimator,
        states=augment(estimator.states),
        jacobians=None if estimator.jacobians is None else augment(estimator.jacobians),
        replay=None if estimator.replay is None else augment(estimator.replay),
        tail=replace(tail, critic=critic),
        entropy=0.0,
    )
    return soft, WithLogProb(policy)


def augmenting(alpha: float) -> Callable[[System], System]:
    """A function that augments each system once: one system stays one system."""
    made: dict[int, tuple[System, System]] = {}

    def augment(system: System) -> System:
        if id(system) not in made:
            if isinstance(system, Recorded):
                raise InputError("entropy needs log π of every action: states cannot be recorded")
            made[id(system)] = (system, Entropic(system, alpha))
        return made[id(system)][1]

    return augment


Critics = CriticLike | Sequence[CriticLike] | None
OtherCritics = Mapping[str, Sequence[Estimator]]  # by the name of the estimator


def listed(critic: Critics) -> tuple[nn.Module, ...]:
    """The critics given, one or several.

    Raises:
        InputError: an empty sequence, or something that is neither module nor function.
    """
    if critic is None:
        return ()
    several = critic if isinstance(critic, list | tuple | nn.ModuleList) else [critic]
    if not len(several):
        raise InputError("critic is an empty sequence: give at least one critic")
    return tuple(as_critic(critic) for critic in several)


def with_other_critics(
    chosen: Mapping[str, Estimator],
    owned: Mapping[str, nn.Module | None],
    critics: Sequence[nn.Module],
) -> dict[str, list[Estimator]]:
    """For each estimator with a Q critic in its tail, the same with each of the other critics.

    Args:
        owned: the critic that each estimator came with, which is not among the others.
        critics: those of the user, at least two or there are no others.
    """
    if len(critics) < 2:
        return {}
    copies = [(critic, copy.deepcopy(critic).double()) for critic in critics]
    several = {}
    for name, estimator in chosen.items():
        if estimator.tail.critic is None or estimator.tail.value != "Q":
            continue
        others = [double for critic, double in copies if not same_critic(critic, owned[name])]
        if others:
            several[name] = [
                replace(estimator, tail=replace(estimator.tail, critic=c)) for c in others
            ]
    return several
