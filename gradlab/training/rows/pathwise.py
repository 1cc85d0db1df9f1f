"""θ in every action of a model's path, a replayed one or the simulator's: BPTT, SVG, RP-PGM, SHAC.

    rp-dp   model derivatives on predictions, from a mixture of first states           (eq. 4.2)
    rp-dr   model derivatives on real samples: on-policy paths, their noise inferred    (eq. 4.5)

RP-PGM: ReLU, a policy of 4 layers and a model of 5 (appendix B.1), fitted along h steps (B.2). The
critic is fitted by TD (algorithm 1): with entropy for rp-dp, as in MAAC, without for rp-dr, as in
SVG on policy (section 7.1). Ours are the share of starts (remark 5.9 wants a mixture and names
none), the length of the windows, ten paths of each environment, and what TD is on policy: SHAC's 16
passes over a window of four steps each, and targets that follow by 0.8. By one step and 0.005, as
in replay, the critic of 500 windows is still near its first values, and rp-dr does not learn
(`reports/model-based`).

Losses along collected transitions have real states, noise inferred, a model's Jacobians:

    a_t = π_θ(s_t, ε̂_t),   s_{t+1} = f(s_t, a_t) + ξ̂_t,   r_t = r(s_t, a_t) + its own rest

At θ of the collection these are the actions, states and rewards that were stored, and their
derivatives are those of the policy and of the model's mean (RP-DR; SVG, Heess et al. 2015).

First-order rows (SHAC and after it) differentiate through the simulator, along windows that go on
with the episode: every update collects its own window of each environment, and uses it once.
`docs/model_based_settings.md` has what differs from papers and published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.fitting.losses import MultiStep
from gradlab.training.algorithm import Algorithm
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.models.seed_models import slope_along
from gradlab.training.parts.adaptive_horizon import Stiffness
from gradlab.training.parts.context import Context, FixedWeights, Floats, Passes
from gradlab.training.parts.critics import ImportanceWeighted
from gradlab.training.parts.policy_losses import FromStarts, PolicyLoss, Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import Copied, NoCritic, Polyak, Soft, StateOneStep
from gradlab.training.parts.temperature import Automatic
from gradlab.training.parts.window_losses import StateLambda, WindowReturn


@dataclass(frozen=True)
class ReplayedStep(PolicyLoss):
    """One replayed transition, its noise inferred, along the model's Jacobians (SVG(1), RP-DR):

        loss = −mean w (r + γ V(s′)),   a = π_θ(s, ε̂),  s′ = f(s, a) + ξ̂,  w = min(c, π/μ)

    Attributes:
        most: c, the largest importance weight.
    """

    most: float = 10.0
    name: ClassVar[str] = "replayed, noise inferred"
    horizon: ClassVar[int | None] = 1
    densities: ClassVar[bool] = True

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        objective, model = context.objective, context.model
        assert model is not None
        drawn, _ = context.act(batch.state, context.noise_of(batch.state, batch.action))
        action = batch.action + drawn - drawn.detach()
        noise = context.along("model noise", 1, action.shape[1], model.noise_dim)
        after, reward = slope_along(model, batch, action, None if noise is None else noise[0])
        going_on = 1 - batch.terminated if objective.masked else 1.0
        total = objective.reward_scale * reward
        total = total + objective.discount * going_on * context.value(after)
        with torch.no_grad():
            importance = context.importance(batch, self.most)
        return -torch.from_numpy(weights[:, 0]).to(total) * (importance * total).mean(dim=1), 1


@dataclass(frozen=True)
class ReplayedPath(PolicyLoss):
    """On-policy paths, their noise inferred, along the model's Jacobians (SVG(∞)):

        loss = −mean Σ_{t<n} γᵗ r_t,   a_t = π_θ(s_t, ε̂_t),  s_{t+1} = f(s_t, a_t) + ξ̂_t

    Where an episode ends, the rest of the n steps is another path, at γ⁰ again.
    """

    name: ClassVar[str] = "replayed paths, noise inferred"
    paths: ClassVar[bool] = True

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        steps = terms[0].horizon
        total, _ = _along(context, batch, steps, valued=False)
        return -torch.from_numpy(weights[:, 0]).to(total) * total.mean(dim=1), steps


@dataclass(frozen=True)
class ReplayedExpansion(PolicyLoss):
    """The same paths, ended after h steps by the critic: model derivatives on real samples (RP-DR,
    RP-PGM eq. 4.5):

        loss = −mean (Σ_{t<h} γᵗ (r_t − α log π_t) + γʰ (Q(s_h, a_h) − α log π_h))

    with the last action a_h drawn anew. An episode that ends within the h steps is valued there,
    but for a masked terminal state, and the rest is another path; the mean is over all paths.
    """

    name: ClassVar[str] = "replayed paths to the critic"
    paths: ClassVar[bool] = True

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        steps = terms[0].horizon
        total, paths = _along(context, batch, steps, valued=True)
        mean = total.sum(dim=1) / paths.sum(dim=1)
        return -torch.from_numpy(weights[:, 0]).to(total) * mean, steps


def _along(context: Context, batch: Batch, steps: int, *, valued: bool) -> tuple[Tensor, Tensor]:
    """Returns along a batch that is cut into paths of `steps` steps, and how many paths they are,
    [E, rows] each.
    """
    objective, model = context.objective, context.model
    assert model is not None
    windows = _cut(batch, steps, context.agents)
    count = windows[0].state.shape[1]
    noise = context.along("model noise", steps, count, model.noise_dim)
    last = context.along("last actions", steps, count, context.noise_dim) if valued else None
    state, discount = windows[0].state, torch.ones_like(windows[0].reward)
    total, paths = torch.zeros_like(discount), torch.ones_like(discount)
    for t, here in enumerate(windows):
        drawn, log_prob = context.act(state, context.noise_of(here.state, here.action))
        action = here.action + drawn - drawn.detach()
        dealt = None if noise is None else noise[t]
        after, reward = slope_along(model, replace(here, state=state), action, dealt)
        total = total + discount * objective.reward_scale * reward
        if valued and log_prob is not None:
            total = total - discount * objective.temperature * log_prob
        following = windows[t + 1] if t + 1 < steps else None
        same = _goes_on(here, following)
        if valued and not same.all():
            acted = context.act(after, None if last is None else last[t])
            going_on = 1 - here.terminated if objective.masked else 1.0
            value = objective.discount * discount * going_on * context.value(after, *acted)
            total = total + torch.where(same, 0.0, value)
        if following is not None:
            state = torch.where(same[..., None], after, following.state)
            discount = torch.where(same, objective.discount * discount, 1.0)
            paths = paths + ~same
    return total, paths


def _goes_on(here: Batch, following: Batch | None) -> Tensor:
    """Whether the next row is the next step of the same episode, [E, rows]."""
    if following is None:
        return torch.zeros_like(here.terminated, dtype=torch.bool)
    return (here.next_state == following.state).all(dim=2) & (here.terminated < 0.5)


def _cut(batch: Batch, steps: int, agents: int) -> list[Batch]:
    """Every step of all paths, of a batch that has the environments' steps one after another."""

    def cut(values: Tensor) -> tuple[Tensor, ...]:
        apart = values.reshape(len(values), -1, steps, agents, *values.shape[2:])
        return tuple(part.flatten(1, 2) for part in apart.unbind(dim=2))

    tensors = {name: cut(values) for name, values in batch.tensors.items()}
    return [Batch(**{name: parts[t] for name, parts in tensors.items()}) for t in range(steps)]


def _normalised(row: Algorithm) -> Algorithm:
    """All layers of the policy at norm 1, and all but the last of the model (appendix B.1)."""
    model = replace(_MODEL, spectral="all_but_last")
    return replace(
        row,
        name=f"{row.name}-sn",
        policy_spectral="all",
        model=model,
        paper="RP-PGM section 7.3, appendix B.1",
    )


_PATHWISE_ROWS = (
    Algorithm(
        "bptt",
        (Term(25, "all"),),
        FixedWeights(),
        NoCritic(),
        loss=FromStarts(),
        paper="RP-PGM section 4.2, h = ∞; MAAC appendix A.1",
    ),
    Algorithm(
        "svg",
        (Term(1, "all"),),
        FixedWeights(),
        StateOneStep(),
        policy="gaussian",
        model=LearnedModel(),
        loss=ReplayedStep(),
        critic_loss=ImportanceWeighted(),
        log_std=(-1.0, 2.0),  # else σ collapses, and with it π/μ of replayed actions
        target_critic=Copied(100),
        paper="Heess et al. 2015, algorithm 2",
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
        paper="Heess et al. 2015, algorithm 1",
    ),
)

_MODEL = LearnedModel(loss=MultiStep(3), hidden=(64, 64, 64, 64), activation="relu")

_RP_DP = Algorithm(
    "rp-dp",
    (Term(3, "all"),),
    FixedWeights(),
    Soft(),
    policy="gaussian",
    hidden=(256, 256, 256),
    activation="relu",
    model=_MODEL,
    loss=FromStarts(0.5),
    paper="RP-PGM eq. 4.2, section 7.1",
)

_RP_DR = replace(
    _RP_DP,
    name="rp-dr",
    target=Soft(temperature=0.0),
    loss=ReplayedExpansion(),
    fit=Passes(16, 4),
    target_critic=Polyak(0.8),
    source=Newest(30),
    paper="RP-PGM eq. 4.5, section 7.1",
)

_SHAC = Algorithm(
    "shac",
    (Term(32, "all"),),
    FixedWeights(),
    StateLambda(),
    policy="gaussian",
    policy_rate=(2e-3, 1e-5),
    value_rate=(2e-3, 1e-5),
    clip=1.0,
    loss=WindowReturn(),
    fit=Passes(16, 4),
    target_critic=Polyak(0.8),
    source=Newest(32),
    paper="Xu et al. 2022 (SHAC), algorithm 1",
)

ROWS = (
    *_PATHWISE_ROWS,
    _RP_DP,
    _normalised(_RP_DP),
    _RP_DR,
    _normalised(_RP_DR),
    _SHAC,
    replace(
        _SHAC,
        name="ahac",
        target=StateLambda(critics=2),
        target_critic=Copied(1),
        adaptive=Stiffness(),
        paper="Georgiev et al. 2024 (AHAC), algorithm 1",
    ),
    replace(
        _SHAC,
        name="sapo",
        target=StateLambda(critics=2, temperature=Automatic(rate=5e-3)),
        loss=WindowReturn(tail="mean"),
        target_critic=Copied(1),
        value_rate=(5e-4, 1e-5),
        clip=0.5,
        paper="Xing et al. 2025 (SAPO), section 4",
    ),
    replace(
        _SHAC,
        name="abpt",
        target=StateLambda(temperature=Automatic(rate=5e-3), actions=True),
        loss=WindowReturn(blend="half"),
        paper="Li et al. 2025 (ABPT), section 4",
    ),
    replace(
        _SHAC,
        name="agpo",
        target=StateLambda(critics=2, actions=True),
        loss=WindowReturn(blend="variance"),
        target_critic=Polyak(0.05),
        policy_rate=(1e-3, 1e-5),
        clip=0.5,
        paper="Gao et al. 2024 (AGPO)",
    ),
    Algorithm(
        "apg",
        (Term(32, "all"),),
        FixedWeights(),
        NoCritic(stochastic=True),
        policy="gaussian",
        policy_rate=(2e-3, 1e-5),
        clip=1.0,
        loss=WindowReturn(tail="none"),
        source=Newest(32),
        paper="Freeman et al. 2021 (Brax), analytic policy gradients",
    ),
    replace(
        _SHAC,
        name="dmo",
        terms=(Term(16, "all"),),
        model=LearnedModel(every=1, first_steps=1000, steps=128, rows=100_000),
        loss=WindowReturn("model"),
        source=Newest(16),
        paper="Amigo et al. 2025 (DMO), on SHAC",
    ),
)
