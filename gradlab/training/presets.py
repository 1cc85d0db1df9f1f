"""Settings that papers print for a task, as options of `gradlab train`.

What a paper leaves open stays gradlab's. Gymnasium's tasks of version 5 stand for the papers'
version 2. Iterations are updates of the critic: environment steps · updates for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gradlab.errors import InputError
from gradlab.training.algorithms import ALGORITHMS


@dataclass(frozen=True)
class Printed:
    """One setting: the option's name in Python, its value, and where it is printed."""

    option: str
    value: Any
    source: str


class _Environment(NamedTuple):
    """A column of DDPPO's table 1, with the warm-up and k of its section B.2.2; and what it takes
    of MBPO, by that one's code: the updates for a step, and k."""

    epochs: int
    H: int
    n: int
    w: float
    warmup: int = 5000
    last_k: int = 1  # reached in epoch 155, from 1 in epoch 25
    mbpo_updates: int = 20
    mbpo_k: tuple[int, ...] = (1,)  # from, to, first and last epoch


_ENVIRONMENTS: Mapping[str, _Environment] = {
    "InvertedPendulum-v5": _Environment(15, 3, 10, 10.0, warmup=200, mbpo_updates=10),
    "Hopper-v5": _Environment(100, 2, 25, 50.0, last_k=15, mbpo_k=(1, 15, 20, 150)),
    # Cells of n are merged in the text: 25 for Walker2D and HalfCheetah, 5 for the last two.
    "Walker2d-v5": _Environment(100, 3, 25, 0.1),
    "HalfCheetah-v5": _Environment(100, 3, 25, 1.0, mbpo_updates=40),
    "Ant-v5": _Environment(150, 3, 5, 0.1, mbpo_k=(1, 25, 20, 100)),
    "Humanoid-v5": _Environment(150, 3, 5, 0.1, last_k=25, mbpo_k=(1, 25, 20, 300)),
}
_STEPS, _UPDATES, _FITTED = 1000, 10, 250  # of an epoch; G1 = G2; environment steps between fits
_MBPO = "jannerm/mbpo, whose numbers DDPPO takes"
_DDPPO = ("ddppo", "ddppo-one-model", "ddppo-no-gradient-loss", "ddppo-double-parameters")
_NO_GRADIENT_LOSS = _DDPPO[2:]
_MAAC = (
    "maac", "maac-h0", "maac-no-steve", "maac-one-sample", "maac-five-batch", "maac-real-data",
    "maac-no-entropy",
)  # fmt: skip
_MPG = ("mpg-v1", "mpg-v2", "n-step-dpg", "n-step-adp", "td3", "sac")
_RP = ("rp-dp", "rp-dp-sn", "rp-dr", "rp-dr-sn")


def _table_1(algorithm: str, task: str, horizons: Sequence[int]) -> Iterator[Printed]:
    """DDPPO and, as it prints them, MAAC and MBPO; those two's updates by their own code."""
    here, table, text = _ENVIRONMENTS[task], "DDPPO table 1", "DDPPO B.2.2"
    baseline, updates = algorithm not in _DDPPO, _UPDATES
    k: tuple[int, ...] = (1, here.last_k, 25, 155) if here.last_k > 1 else (1,)
    made = f"{table}, G" if not baseline else "MAAC's code: 10,000 after 1,000 steps"
    if algorithm == "mbpo":
        updates, k, made = here.mbpo_updates, here.mbpo_k, _MBPO
    yield Printed("iterations", here.epochs * _STEPS * updates, f"{table}, epochs; {made}")
    yield Printed("updates", updates, made)
    yield Printed("agents", 1, f"{table}, one environment")
    yield Printed("warmup", here.warmup, text)
    yield Printed("fit_every", _FITTED * updates, f"{text}, 250 steps")
    if algorithm == "ddppo-double-parameters":
        yield Printed("model_hidden", (283,) * 4, "DDPPO 5.3: twice the parameters of 4 × 200")
    else:
        yield Printed("model_hidden", (200,) * 4, f"{text}: MBPO's network")
    yield Printed("members", 7, f"{table}, ensemble size")
    if algorithm not in ("mbpo", "maac-h0"):
        where = "DDPPO B.2.3" if baseline else f"{table}, H"
        yield Printed("horizons", (here.H,), where)
    if not baseline or algorithm == "mbpo":
        k = (*k[:2], *(epoch * _STEPS * updates for epoch in k[2:]))
        yield Printed("rollout_length", k, _MBPO if baseline else f"{text}, k")
    if baseline:
        return
    yield Printed("batch", 256, text)
    yield Printed("temperature", "auto", "DDPPO eq. 13")
    if algorithm not in _NO_GRADIENT_LOSS:
        yield Printed("neighbours", here.n, f"{table}, n")
        yield Printed("directions", "all", "DDPPO eq. 9")
        yield Printed("loss_weight", here.w, f"{table}, w")
        yield Printed("as_printed", True, "DDPPO eq. 10")


def _table_vi(algorithm: str, task: str, horizons: Sequence[int]) -> Iterator[Printed]:
    table, text = "MPG table VI", "MPG section V"
    shared = {
        "hidden": (256, 256), "replay": 500_000, "batch": 256, "tau": 0.005, "actors": 2,
        "buffers": 2, "learners": 12,
    }  # fmt: skip
    own: dict[str, Any] = {"sac": {"temperature": 0.03}, "td3": {"delay": 2, "exploration": 0.1}}
    several = {"reuse": 10, "target_steps": 25}
    own |= {"n-step-dpg": several, "n-step-adp": several | {"horizons": (25,)}}
    own |= {"mpg-v1": several | {"delay": 2, "horizons": (0, 25)}}
    own |= {"mpg-v2": {"reuse": 10, "delay": 2, "horizons": (0, 25)}}
    for name, value in (shared | own[algorithm]).items():
        yield Printed(name, value, table)
    runs = {"iterations": 100_000, "seeds": 5, "evaluate_every": 3000, "evaluation_starts": 5}
    for name, value in runs.items():
        yield Printed(name, value, text)
    yield Printed("episode", {"path_tracking": 200, "inverted_pendulum": 100}[task], text)


def _layers(algorithm: str, task: str, horizons: Sequence[int]) -> Iterator[Printed]:
    """RP-PGM prints numbers of layers, no widths: these are gradlab's. Its model predicts as many
    steps as are unrolled."""
    row = ALGORITHMS[algorithm]
    yield Printed("hidden", row.hidden, "RP-PGM B.1, 4 layers")
    assert row.model is not None
    yield Printed("model_hidden", row.model.hidden, "RP-PGM B.1, 5 layers")
    if longest := max(horizons or row.horizons):
        yield Printed("loss_steps", longest, "RP-PGM figure 6, h-step models")


_PAPERS = (
    (_MPG, ("path_tracking", "inverted_pendulum"), _table_vi),
    ((*_DDPPO, *_MAAC, "mbpo"), tuple(_ENVIRONMENTS), _table_1),
    (_RP, ("Hopper-v5", "Walker2d-v5"), _layers),
)


def known(algorithm: str, task: str) -> bool:
    """Whether a paper prints settings of the algorithm for the task."""
    return any(algorithm in rows and task in tasks for rows, tasks, _ in _PAPERS)


def printed(algorithm: str, task: str, horizons: Sequence[int] = ()) -> tuple[Printed, ...]:
    """What the algorithm's paper prints for the task.

    Args:
        horizons: those of the policy's gradient, where they are not the row's own.

    Raises:
        InputError: no paper has it; names what there is.
    """
    for rows, tasks, settings in _PAPERS:
        if algorithm in rows:
            if task in tasks:
                return tuple(settings(algorithm, task, horizons))
            raise InputError(
                f"preset is 'paper', but no paper has {algorithm} on {task}: it has "
                f"{', '.join(tasks)}"
            )
    known = ", ".join(name for rows, *_ in _PAPERS for name in rows)
    raise InputError(f"preset is 'paper', which {algorithm} has not: presets are of {known}")
