"""Rows of the table of algorithms, by family.

The first are MPG and its baselines: mixtures of J_0 and J_n, and the data-driven gradient alone.

Rows with a learned model in data, target, loss or path: MAAC, MBPO, STEVE, MAGE, DDPPO.

G = 10 updates for each transition, as the papers or their code have it; models are fitted again and
rolled out after 250 environment steps, which are 2500 iterations, with rollouts of one step.
`docs/model_based_settings.md` has what is smaller here than in the papers.

θ in every action of a model's path, a replayed one or the simulator's: BPTT, SVG, RP-PGM, SHAC.

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
from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithm import LIKELIHOOD, LOSSES, Algorithm, LearnedModel
from gradlab.training.parts.context import (
    Branched,
    Branching,
    Context,
    FixedWeights,
    Floats,
    Newest,
    Passes,
    Replayed,
    TwoStores,
)
from gradlab.training.parts.critics import (
    ActionGradient,
    Copied,
    ImportanceWeighted,
    NoCritic,
    NStep,
    OneStep,
    Polyak,
    Soft,
    StateOneStep,
    Steve,
)
from gradlab.training.parts.duals import Automatic, Stiffness
from gradlab.training.parts.policy_losses import MixtureLoss, PolicyLoss, Term
from gradlab.training.parts.window_losses import (
    StateLambda,
    WindowReturn,
    goes_on,
    in_paths,
    split,
)
from gradlab.training.seed_models import slope_along

DATA, MODEL, MODEL_ALL = Term(0), Term(25), Term(25, "all")
_CLIPPED = OneStep(twin=True)

TD3 = Algorithm(
    "td3",
    (DATA,),
    FixedWeights(),
    OneStep(twin=True, smoothing=0.1),
    delay=2,
    paper="Fujimoto et al. 2018, algorithm 1; MPG appendix C-B",
)
SAC = Algorithm(
    "sac",
    (DATA,),
    FixedWeights(),
    Soft(),
    policy="gaussian",
    paper="Haarnoja et al. 2018 (and applications), algorithm 1; MPG appendix C-B",
)

_MPG = (
    Algorithm(
        "mpg-v1",
        (DATA, MODEL),
        MpgWeights(),
        NStep("simulator"),
        reuse=10,
        delay=2,
        paper="MPG algorithm 1, n-step TD of section IV-B",
    ),
    Algorithm(
        "mpg-v2",
        (DATA, MODEL),
        MpgWeights(),
        _CLIPPED,
        reuse=10,
        delay=2,
        paper="MPG algorithm 1, clipped double Q of section IV-B",
    ),
    Algorithm(
        "mpg-general",
        (DATA, Term(5), Term(10), MODEL),
        MpgWeights(),
        _CLIPPED,
        reuse=10,
        delay=2,
        paper="MPG appendix C-A",
    ),
    Algorithm(
        "n-step-dpg",
        (DATA,),
        FixedWeights(),
        NStep("simulator"),
        reuse=10,
        paper="MPG appendix C-B",
    ),
    Algorithm(
        "n-step-adp",
        (MODEL_ALL,),
        FixedWeights(),
        NStep("model"),
        reuse=10,
        paper="MPG appendix C-B",
    ),
    Algorithm(
        "ddpg",
        (DATA,),
        FixedWeights(),
        OneStep(),
        paper="Lillicrap et al. 2016, algorithm 1",
    ),
    TD3,
    SAC,
)


# H steps of the model with entropy in the sum, several paths for each state; critics on STEVE's
# targets over the same H. Ablations of figures 3 and 5 differ in a part or two.
_MAAC = Algorithm(
    "maac",
    (Term(3, "all"),),
    FixedWeights(),
    Steve(3),
    policy="gaussian",
    model=LearnedModel(bootstrap=True, every=2500),
    loss=MixtureLoss(samples=5),
    source=Branched(Branching(every=2500)),
    updates=10,
    paper="MAAC section 3",
)
_ONE_SAMPLE = replace(
    _MAAC, name="maac-one-sample", loss=MixtureLoss(samples=1), paper="MAAC section 4.3, figure 3"
)

_MAAC_ROWS = (
    _MAAC,
    replace(_MAAC, name="maac-h0", terms=(Term(0),), paper="MAAC section 4.3, figure 3"),
    replace(_MAAC, name="maac-no-steve", target=Soft(), paper="MAAC section 4.3, figure 3"),
    _ONE_SAMPLE,
    replace(
        _ONE_SAMPLE,
        name="maac-five-batch",
        batch=5 * _MAAC.batch,
        paper="MAAC appendix A.3, figure 5",
    ),
    replace(_MAAC, name="maac-real-data", source=Replayed(), paper="MAAC appendix A.3, figure 5"),
    replace(
        _MAAC,
        name="maac-no-entropy",
        target=Steve(3, temperature=0.0),
        paper="MAAC appendix A.3, figure 5",
    ),
)

# The data-driven gradient J_0; the model is behind its critic.
_CRITICS_MODEL = LearnedModel(every=2500)

_CRITIC_ROWS = (
    replace(
        SAC,
        name="mbpo",
        model=replace(_CRITICS_MODEL, members=7, elites=5, bootstrap=True),
        source=Branched(Branching(every=2500)),
        updates=10,
        paper="Janner et al. 2019, algorithm 2",
    ),
    replace(
        SAC,
        name="steve",
        model=_CRITICS_MODEL,
        target=Steve(),
        updates=10,
        paper="Buckman et al. 2018, section 3",
    ),
    replace(
        TD3,
        name="mage",
        model=_CRITICS_MODEL,
        critic_loss=ActionGradient(TD3.target, threshold=1.0),
        updates=10,
        paper="D'Oro and Jaśkowski 2020, algorithm 1",
    ),
)

# States of one model, Jacobians of a second one; G1 = G2 = 10 (table 1), 5 of 7 members, the
# temperature holds the policy's entropy (eq. 13).
_ONE_MODEL = LearnedModel(loss=LOSSES["dd"], members=7, elites=5, every=2500)
# As many parameters as two of 64: 96² + 96 w ≈ 2 (64² + 64 w), w inputs and outputs.
_LARGER = replace(_ONE_MODEL, loss=LIKELIHOOD, hidden=(96, 96))

_DDPPO = Algorithm(
    "ddppo",
    (Term(3, "all"),),
    FixedWeights(),
    Soft(Automatic()),
    policy="gaussian",
    model=replace(_ONE_MODEL, two_models=True),
    source=TwoStores(Branching(every=2500)),
    updates=10,
    paper="DDPPO algorithm 1, section 4.3",
)

_DDPPO_ROWS = (
    _DDPPO,
    replace(
        _DDPPO,
        name="ddppo-no-gradient-loss",
        model=replace(_ONE_MODEL, two_models=True, loss=LIKELIHOOD),
        paper="DDPPO section 5.3, figures 3 and 5",
    ),
    replace(
        _DDPPO,
        name="ddppo-one-model",
        model=_ONE_MODEL,
        paper="DDPPO section 5.3, figures 3 and 5",
    ),
    replace(
        _DDPPO,
        name="ddppo-double-parameters",
        model=_LARGER,
        paper="DDPPO section 5.3, figures 4 and 7",
    ),
)

_MODEL_BASED = (*_MAAC_ROWS, *_CRITIC_ROWS, *_DDPPO_ROWS)


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

    Attributes:
        valued: ended by the critic after h steps (RP-DR, RP-PGM eq. 4.5):

            loss = −mean (Σ_{t<h} γᵗ (r_t − α log π_t) + γʰ (Q(s_h, a_h) − α log π_h))

            with the last action a_h drawn anew. An episode that ends within the h steps is valued
            there, but for a masked terminal state; the mean is over all paths.
    """

    valued: bool = False
    paths: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"replayed paths{' to the critic' if self.valued else ', noise inferred'}"

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        objective, model, steps = context.objective, context.model, terms[0].horizon
        assert model is not None
        by_path = in_paths(batch, steps, context.agents)
        same = goes_on(by_path, steps)
        count = same.shape[1]
        noise = context.along("model noise", steps, count, model.noise_dim)
        last = context.along("last actions", steps, count, context.noise_dim)
        total = torch.zeros_like(same[..., 0], dtype=batch.reward.dtype)
        discount, paths = torch.ones_like(total), torch.ones_like(total)
        state: Tensor | None = None
        for t in range(steps):
            at = {name: split(x, steps)[:, :, t] for name, x in by_path.tensors.items()}
            here = Batch(**at)
            if state is not None:
                again = same[..., t - 1]
                state = torch.where(again[..., None], state, here.state)
                discount = torch.where(again, objective.discount * discount, 1.0)
                paths = paths + ~again
            state = here.state if state is None else state
            drawn, log_prob = context.act(state, context.noise_of(here.state, here.action))
            action = here.action + drawn - drawn.detach()
            dealt = None if noise is None else noise[t]
            state, reward = slope_along(model, replace(here, state=state), action, dealt)
            total = total + discount * objective.reward_scale * reward
            if not self.valued:
                continue
            if log_prob is not None:
                total = total - discount * objective.temperature * log_prob
            if not same[..., t].all():
                acted = context.act(state, None if last is None else last[t])
                going_on = 1 - here.terminated if objective.masked else 1.0
                value = objective.discount * discount * going_on * context.value(state, *acted)
                total = total + torch.where(same[..., t], 0.0, value)
        mean = total.sum(dim=1) / paths.sum(dim=1) if self.valued else total.mean(dim=1)
        return -torch.from_numpy(weights[:, 0]).to(total) * mean, steps


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
        loss=MixtureLoss(beta=0.0),
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
    loss=MixtureLoss(beta=0.5),
    paper="RP-PGM eq. 4.2, section 7.1",
)

_RP_DR = replace(
    _RP_DP,
    name="rp-dr",
    target=Soft(temperature=0.0),
    loss=ReplayedPath(valued=True),
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

_PATHWISE = (
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

ROWS = (*_MPG, *_MODEL_BASED, *_PATHWISE)
