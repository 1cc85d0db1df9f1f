"""The model-based rows of the table, trained on two swing-ups: runs that several claims share.

    python -m analyses.model_based train --arm maac --world pendulum    one run; goes on
    python -m analyses.model_based all --first 0 --of 2                 every second run that is due

Worlds are on the circle: Gymnasium's pendulum with rewards times 0.1 in training, episodes of 200
steps and γ = 0.95, and the cart-pole swing-up, episodes of 50 and its γ = 0.95. Five seeds as one
program, 4,000 transitions each, 4 updates for a transition, models fitted again after 250. Rows on
policy (svg-inf, rp-dr) make 500 updates, each from a window of its own of 64 environments, which
are 1,024,000 and 960,000 transitions, and fit their model every 50; where they are measured no
episode ends within a window. Otherwise as the rows are listed, but for networks of 64 instead of
256 wide, batches of half the size, and learning rates of 1e-3, not annealed. Models of rp-* and
ddppo*, most of which are fitted along paths or directions at three to ten times the price of a
step, take 500 steps on batches of 128 for each fit instead of 1,000 on 256, and 2,000 in the
first. "Same mechanism", never "figure reproduced".

    main        on both worlds                      sac and nine model-based rows
    ablations   on the pendulum                     MAAC's, DDPPO's
    unrolls     on the cart-pole                    rp-dp-sn at h = 3, both at 15
                on both worlds                      rp-dr-sn
    horizons    on the pendulum                     ddppo at H = 5, 10 beside its 3
    control     on both worlds                      td3, added after mage was seen not to learn
    models      on the cart-pole                    mbpo and maac with models fitted by squared
                                                    error ("mse") or 2×200 wide ("wide")
    learns      on the cart-pole                    steve, mage, svg and ddppo by squared error;
                on both worlds                      svg with the simulator as its model ("exact")
                on the cart-pole                    steve, mbpo and mage with the simulator
    batches     on both worlds                      svg-inf, svg-inf and bptt exact, apg: 256 paths
    more        on the pendulum                     maac and maac-real-data: 17 seeds more
    smoke       on Gymnasium's Hopper-v5            the main rows: two seeds, 4,000 transitions
                on its HalfCheetah-v5               sac, maac, ddppo: the same
    long        on Gymnasium's Hopper-v5, its       sac, mbpo, maac, ddppo, rp-dp and rp-dp-sn:
                HalfCheetah-v5 and Walker2d-v5      three seeds, 25,000 transitions

Smoke runs are far too short for a return (the papers' take 10⁵ transitions and more): they are the
mechanism on real tasks, and the Hopper of `whose_gradient`. They make one update for a transition.

So do the long runs, as Stable-Baselines3's SAC by default: 256-wide networks, batches of 256,
constant rates of 3e-4, an automatic temperature in all six; models, as wide as listed, are fitted
again after 500 transitions. They keep the networks of five stages and measure nothing. Criterion:
`reports/model-based`, "Hopper, 25,000 transitions".

The models' runs were added after `mbpo`, `maac`, `ddppo` and `svg` were seen not to learn the
cart-pole, where their models, 2×64 by likelihood, explain less than half of the held-out variance
of the reward and over .95 of every state's, and `rp-dp` to learn, whose model has squared error and
explains .99. The reward is to blame if a row learns by either of the two other models: if the
interval of its final return lies above the one it has by its own.

The runs that ask which rows learn came last, with those of `mage` and `svg` made anew: the
optimiser scrambled MAGE's gradients, and svg's σ collapsed (its log σ is at least −1 since). A row
*learns* a world where in at least 4 of 5 seeds the final return is no further below `sac`'s final
median than a tenth of the way from there to the untrained policy's (−267 on the pendulum, −19.8 on
the cart-pole). Where it does not by the papers' likelihood, squared error stands beside it: of the
losses tried on six worlds it explains the cart-pole's reward best. In ddppo both models, states and
Jacobians, are then fitted by it. One number of runs, one look; each is listed.

The runs of batches have 256 paths in an update, as these rows are listed, in the place of 64 or of
half a batch (those of `rp-dr` have 640 already); nothing else differs. They were added after
`svg-inf` was seen not to learn, and before any of them was trained. At 500 updates the
pendulum's seeds of `apg` and of `svg-inf` with the simulator still rose, so that these two rows
were made again with 2,000 in both worlds; so was `svg-inf` with its own model, after it was seen to
learn the pendulum with the simulator in 2,000 and to end at 500 where it does by either.

`rp-dr` did not learn while its critic made one step in an update and its targets followed by 0.005.
It is listed with SHAC's fit since (c1e7cb5c has both), and so are all of its runs from here on.

Five seeds left ENTROPY-REAL undecided, at a price of 17 more by maac − maac-real-data, and MPC, at
one of 12. So seeds 5 to 21 of these two arms are trained, fixed before any of them, by

    python -m analyses.model_based train --arm maac --world pendulum --more

and both claims are judged once, when both arms have all 22: MPC by the pendulum's 22 seeds and the
cart-pole's five. These runs do not measure their gradient.

`steve` and `mbpo` learn the cart-pole in three seeds of five at best, `mage` in none, and no
published implementation of STEVE runs here. So the simulator stands in the place of their models,
added after that was seen: a row that learns then (four of five) was held back by its models, and
one that does not was not by them alone. STEVE's members all agree, so that its weights know the
spread of the two critics only.

Main runs measure the gradient that they follow at five stages, from 1,024 states (Hopper: 256)
that the row starts from, against a truth by score functions: chains of Jacobians outgrow the
discount in both swing-ups, so that an unrolled truth has no usable mean. There `maac` evaluates
with planned actions, too. Claims and criteria: `model_based_claims`; gradients: `whose_gradient`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

from torch import Tensor

from analyses.harness import running
from analyses.harness.running import commands, ended
from gradlab import tasks
from gradlab.data.replay import Batch
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import OneStepError
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find, with_fits, with_horizons, with_temperature
from gradlab.training.models.seed_models import Model, SeedModels, model_step
from gradlab.training.parts.context import Context
from gradlab.training.parts.targets import Steve
from gradlab.training.parts.temperature import Automatic
from gradlab.training.settings import Planning

RUNS = Path("runs/model-based")
Swing = Literal["pendulum", "cart-pole"]
World = Literal[
    "pendulum", "cart-pole", "hopper", "half-cheetah", "hopper-long", "half-cheetah-long",
    "walker2d-long",
]  # fmt: skip
Fit = Literal["mse", "wide", "exact"]
SMOKE = ("hopper", "half-cheetah")
LONG: Mapping[World, str] = {
    "hopper-long": "Hopper-v5", "half-cheetah-long": "HalfCheetah-v5",
    "walker2d-long": "Walker2d-v5",
}  # fmt: skip
LONG_ROWS = ("sac", "mbpo", "maac", "ddppo", "rp-dp", "rp-dp-sn")
SEEDS, MORE, SMOKE_SEEDS, LONG_SEEDS = 5, 17, 2, 3
TRANSITIONS, LONG_TRANSITIONS = 4000, 25_000
UPDATES = 4  # for a transition, where a row has 10 or 1
REFIT, LONG_REFIT = 250, 500  # transitions
ON_POLICY, MANY = 500, 64  # updates; environments, whose paths are what is measured
LISTED = 256  # paths of an update
ROSE: Sequence[tuple[str, Fit | None]] = (
    ("apg", None), ("svg-inf", "exact"), ("svg-inf", None),
)  # fmt: skip
LONG_RATES = (3e-4, 3e-4)
RATES = (1e-3, 1e-3)  # MBPO learned the pendulum by them, on other seeds, and not by 3e-4
AGENTS = 8
EVALUATIONS = 12
STAGE_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
STAGES = 5  # measurements of the gradient, the last at the end
STARTS, SMOKE_STARTS = 1024, 256
DISCOUNT = 0.95  # of the pendulum: at 0.98 the truth takes five times as many paths
EPISODES: Mapping[World, int] = {
    "pendulum": 200, "cart-pole": 50, "hopper": 1000, "half-cheetah": 1000,
    **dict.fromkeys(LONG, 1000),
}  # fmt: skip
SCALES: Mapping[World, float] = {"pendulum": 0.1}  # others: 1

MAIN = (
    "sac", "mbpo", "steve", "mage", "svg", "svg-inf", "maac", "rp-dp", "rp-dr", "ddppo",
)  # fmt: skip
MAAC = (
    "maac-h0", "maac-no-steve", "maac-one-sample", "maac-five-batch", "maac-real-data",
    "maac-no-entropy",
)  # fmt: skip
DDPPO = ("ddppo-no-gradient-loss", "ddppo-one-model", "ddppo-double-parameters")
HORIZONS = (5, 10)


@dataclass(frozen=True)
class SteveThrough(Steve):
    """STEVE's targets with the task's exact model in the place of every member."""

    of_members: ClassVar[bool] = False

    def candidates(self, context: Context, batch: Batch) -> Tensor:
        assert context.model is not None
        return super().candidates(replace(context, model=_OneMember(context.model)), batch)


class _OneMember(SeedModels):
    """A deterministic system, as an ensemble of one."""

    system: Model
    members, noise_dim = 1, 2  # of which the rows draw one and use none

    def __init__(self, system: Model) -> None:
        object.__setattr__(self, "system", system)

    def step_by_member(
        self, state: Tensor, action: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return model_step(self.system, state, action, None)


@dataclass(frozen=True)
class Arm:
    """One run: a row of the table in a world, at its own horizon or another, by its own model or
    another, of the study's paths in an update or of as many as are given, and measured from the
    study's states or from more (`starts`)."""

    row: str
    world: World
    horizon: int | None = None
    model: Fit | None = None
    paths: int | None = None
    starts: int | None = None

    @property
    def name(self) -> str:
        at = "" if self.horizon is None else f"-h{self.horizon}"
        by = "" if self.model is None else f"-{self.model}"
        of = "" if self.paths is None else f"-{self.paths}-paths"
        seen = "" if self.starts is None else f"-{self.starts}-starts"
        return f"{self.row}{at}{by}{of}{seen}-{self.world}"

    @property
    def measured(self) -> bool:
        listed = self.row in MAIN and self.horizon is self.model is self.paths is None
        return listed and self.world not in ("half-cheetah", *LONG)

    @property
    def smoke(self) -> bool:
        return self.world in SMOKE

    @property
    def evaluations(self) -> int:
        return 2 * STAGES if self.world in LONG else EVALUATIONS * self.lengths

    @property
    def lengths(self) -> int:
        """Of 500 updates: four where seeds still rose at one."""
        return 4 if self.paths and (self.row, self.model) in ROSE else 1

    @property
    def seeds(self) -> int:
        return LONG_SEEDS if self.world in LONG else SMOKE_SEEDS if self.smoke else SEEDS

    def algorithm(self) -> Algorithm:
        row = find(self.row)
        if self.world in LONG:
            return self.at_length(row)
        if self.horizon is not None:
            row = with_horizons(row, (self.horizon,))
        if row.source.steps:
            row = with_fits(row, ON_POLICY // 10)
        else:
            updates = 1 if self.smoke else UPDATES
            row = with_fits(replace(row, updates=updates), REFIT * updates)
        if row.model is not None and self.row.startswith(("rp-", "ddppo")):
            row = replace(row, model=replace(row.model, steps=500, batch=128))
        if row.model is not None and self.model == "mse":
            squared, loss = OneStepError("mse"), row.model.loss
            if isinstance(loss, DirectionalDerivative):
                loss = replace(loss, prediction="mse")
            else:
                loss = squared
            row = replace(row, model=replace(row.model, loss=loss, states=squared))
        if row.model is not None and self.model == "wide":
            row = replace(row, model=replace(row.model, hidden=(200, 200)))
        if self.model == "exact":
            steve = isinstance(row.target, Steve)
            row = replace(row, model=None, target=SteveThrough() if steve else row.target)
        return replace(
            row, name=self.name, hidden=(64,) * len(row.hidden),
            batch=self.paths or row.batch // 2, policy_rate=RATES, value_rate=RATES,
        )  # fmt: skip

    def at_length(self, row: Algorithm) -> Algorithm:
        """The row as it is listed, but for what the long runs share."""
        row = with_fits(replace(with_temperature(row, Automatic()), updates=1), LONG_REFIT)
        if row.model is not None and self.row.startswith(("rp-", "ddppo")):
            row = replace(row, model=replace(row.model, steps=500, batch=128))
        return replace(
            row, name=self.name, replay=LONG_TRANSITIONS, policy_rate=LONG_RATES,
            value_rate=LONG_RATES,
        )  # fmt: skip

    @property
    def iterations(self) -> int:
        row = self.algorithm()
        if self.world in LONG:
            return LONG_TRANSITIONS
        return ON_POLICY * self.lengths if row.source.steps else TRANSITIONS * (row.updates or 1)

    def task(self) -> Task:
        if self.world in LONG:
            return tasks.mujoco(LONG[self.world])
        if self.world == "hopper":
            return tasks.mujoco("Hopper-v5")
        if self.world == "half-cheetah":
            return tasks.mujoco("HalfCheetah-v5")
        task = tasks.cart_pole_swing_up()
        if self.world == "pendulum":
            task = tasks.pendulum(coordinates="circle", discount=DISCOUNT)
        return replace(task, prior=task.simulator) if self.model == "exact" else task


def arms() -> list[Arm]:
    """All runs, the main ones first."""
    main = [Arm(row, world) for world in get_args(Swing) for row in MAIN]
    ablations = [Arm(row, "pendulum") for row in (*MAAC, *DDPPO)]
    unrolls = [Arm("rp-dp", "cart-pole", 15), *(Arm("rp-dp-sn", "cart-pole", h) for h in (3, 15))]
    unrolls += [Arm("rp-dr-sn", world) for world in get_args(Swing)]
    horizons = [Arm("ddppo", "pendulum", h) for h in HORIZONS]
    smoke = [Arm(row, "hopper") for row in MAIN]
    smoke += [Arm(row, "half-cheetah") for row in ("sac", "maac", "ddppo")]
    fits: tuple[Fit, ...] = ("mse", "wide")
    models = [Arm(row, "cart-pole", model=fit) for row in ("mbpo", "maac") for fit in fits]
    learns = [Arm(row, "cart-pole", model="mse") for row in ("steve", "mage", "svg", "ddppo")]
    learns += [Arm("svg", world, model="exact") for world in get_args(Swing)]
    learns += [Arm(row, "cart-pole", model="exact") for row in ("steve", "mbpo", "mage")]
    batches = [
        Arm(row, world, model=model, paths=LISTED)
        for row, model in (*ROSE, ("bptt", "exact"))
        for world in get_args(Swing)
    ]
    control = [Arm("td3", world) for world in get_args(Swing)]
    long = [Arm(row, world) for world in LONG for row in LONG_ROWS]
    return [
        *main, *control, *smoke, *ablations, *unrolls, *horizons, *models, *learns, *batches, *long,
    ]  # fmt: skip


def path_of(arm: Arm, folder: Path, more: bool = False) -> Path:
    """The file of the design's seeds, or of those that came after them."""
    return folder / f"{arm.name}{'-more' * more}.h5"


def finished(arm: Arm, folder: Path, more: bool = False) -> bool:
    return ended(path_of(arm, folder, more), arm.iterations)


def trained(arm: Arm, folder: Path, more: bool = False, device: str = "cpu") -> None:
    """Train an arm to its end, unless it has been; Ctrl-C saves its state."""
    row, iterations = arm.algorithm(), arm.iterations
    if finished(arm, folder, more):
        return
    running.trained(
        row, arm.task(), path_of(arm, folder, more),
        seeds=MORE if more else arm.seeds,
        first_seed=SEEDS if more else 0, iterations=iterations,
        agents=arm.paths or MANY if row.source.steps else AGENTS,
        interval=AGENTS * (row.updates or 1),
        warmup=500, episode=EPISODES[arm.world], evaluate_every=iterations // arm.evaluations,
        evaluation_starts=20, checkpoint_every=iterations // arm.evaluations,
        keep=STAGE_SHARES if arm.world in LONG else (),
        reward_scale=SCALES.get(arm.world, 1.0), device=device,
        gradient_every=iterations // STAGES if arm.measured and not more else 0,
        gradient_starts=arm.starts or (SMOKE_STARTS if arm.smoke else STARTS),
        gradient_truth="score",
        gradient_horizons="shorter" if arm.starts is None else "own",
        planning=Planning(5) if arm.row == "maac" and not arm.smoke else None,
        command=f"python -m analyses.model_based train --arm {arm.row} --world {arm.world}"
        + ("" if arm.horizon is None else f" --horizon {arm.horizon}")
        + ("" if arm.model is None else f" --model {arm.model}")
        + ("" if arm.paths is None else f" --paths {arm.paths}")
        + ("" if arm.starts is None else f" --starts {arm.starts}") + " --more" * more,
    )  # fmt: skip


def one(
    arm: str, world: World, horizon: int | None = None, model: Fit | None = None,
    paths: int | None = None, starts: int | None = None, folder: Path = RUNS, more: bool = False,
    device: str = "cpu",
) -> None:  # fmt: skip
    """Train one arm, or its further seeds; goes on where it stopped."""
    with suppress(KeyboardInterrupt):
        trained(Arm(arm, world, horizon, model, paths, starts), folder, more, device)


def every(first: int = 0, of: int = 1, folder: Path = RUNS) -> None:
    """Train all arms in turn, those of other processes left out."""
    with suppress(KeyboardInterrupt):
        for arm in arms()[first::of]:
            print(arm.name, flush=True)
            trained(arm, folder)


def main() -> None:
    commands(train=one, all=every)
