"""What the papers trained, at their own length, and the numbers that they print.

A part is one task with its rows; iterations are critic updates, five seeds of a row are one run.
Prices are milliseconds of one processor core per iteration and seed, those of the quickest run of
`reports/mpg-table-1` and `reports/model-based`; another machine, or a run beside others, takes a
third to seven times as long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradlab.errors import InputError

_MPG = ("mpg-v1", "mpg-v2", "n-step-dpg", "n-step-adp", "td3", "sac")
_MAAC_ABLATIONS = ("maac", "maac-h0", "maac-no-steve", "maac-one-sample")
_MODEL_BASED = ("svg", "steve", "mbpo", "maac", "mage", "ddppo")
RETURNS = "table-returns"
_ITERATION = {
    "mpg-v1": 5.4, "mpg-v2": 10, "n-step-dpg": 8, "n-step-adp": 34, "td3": 10, "sac": 11,
    "mbpo": 22, "steve": 25, "mage": 20, "svg": 20, "rp-dp": 52, "rp-dp-sn": 52, "rp-dr": 1600,
    "maac": 34, "maac-h0": 20, "maac-no-steve": 22, "maac-one-sample": 20, "maac-five-batch": 45,
    "maac-real-data": 30, "maac-no-entropy": 30, "ddppo": 89, "ddppo-no-gradient-loss": 60,
    "ddppo-one-model": 60, "ddppo-double-parameters": 60, "ddpg": 6,
}  # fmt: skip

# By the paper's settings on Hopper, of that a fit of the model every 2,500 iterations: 20 by
# likelihood, 24 for each neighbour along which a directional derivative is fitted.
_AT_PRESET = {
    "mbpo": 34, "maac": 350, "maac-h0": 230, "maac-no-steve": 190, "maac-one-sample": 230,
    "maac-five-batch": 1090, "maac-real-data": 350, "maac-no-entropy": 350, "ddppo": 80,
    "ddppo-no-gradient-loss": 100, "ddppo-one-model": 20, "ddppo-double-parameters": 120,
}  # fmt: skip
_NEIGHBOUR = 24


@dataclass(frozen=True)
class ItemPart:
    """One task of an item.

    Attributes:
        task, settings: its name in `gradlab list tasks`, or an environment's, and its options.
        iterations, transitions: the paper's length, by one or the other.
        printed: row → the paper's cells under `columns`.
        options: of `gradlab train`, for every row, by their names in Python.
        measured: how often a run measures its gradient; 0: as the options have it.
        variants: row → the algorithm that it is, and further options.
        preset: what the paper prints for a row on this task (`training.algorithms`) is taken; MPG's
            rows have the numbers of its Table VI, in one process.
    """

    task: str
    rows: tuple[str, ...]
    settings: tuple[str, ...] = ()
    iterations: int | None = None
    transitions: int | None = None
    columns: tuple[str, ...] = ()
    printed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    measured: int = 0
    variants: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    preset: bool = False

    def trained(self, row: str) -> tuple[str, Mapping[str, Any]]:
        """The algorithm of a row, and its options."""
        algorithm, own = self.variants.get(row, (row, {}))
        return algorithm, {**self.options, **own}


@dataclass(frozen=True)
class Item:
    """A table or a figure of a paper: its parts, the table that is written and the figures that
    are drawn of their runs."""

    title: str
    parts: tuple[ItemPart, ...]
    figures: tuple[str, ...] = ("learning-curves",)
    table: str = RETURNS


_PATH = ItemPart(
    "path_tracking", _MPG, iterations=100_000,
    columns=("return", "to -100", "to -30", "to -10", "to -5"),
    printed={
        "mpg-v1": ("-3.73 ± 1.16", "3000", "9000", "11000", "18000"),
        "mpg-v2": ("-4.60 ± 1.40", "3000", "6000", "11000", "31000"),
        "n-step-dpg": ("-21.89 ± 47.87", "30000", "32000", "41000", "–"),
        "n-step-adp": ("-56.83 ± 7.44", "17000", "–", "–", "–"),
        "td3": ("-13.30 ± 26.50", "38000", "49000", "58000", "–"),
        "sac": ("-33.18 ± 19.97", "17000", "29000", "–", "–"),
    },
)  # fmt: skip
_PENDULUM = ItemPart(
    "inverted_pendulum", _MPG, ("engine=mujoco", "slider=wide"), iterations=100_000,
    columns=("return", "to -20", "to -2", "to -0.1", "to -0.01"),
    printed={
        "mpg-v1": ("fails", "–", "–", "–", "–"),
        "mpg-v2": ("-0.08 ± 0.16", "3000", "14000", "15000", "17000"),
        "n-step-dpg": ("fails", "–", "–", "–", "–"),
        "n-step-adp": ("-8.22 ± 7.64", "4000", "–", "–", "–"),
        "td3": ("-0.48 ± 1.35", "11000", "23000", "52000", "–"),
        "sac": ("-0.09 ± 0.12", "28000", "29000", "33000", "48000"),
    },
)  # fmt: skip


def _on(
    rows: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
    variants: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    measured: int = 0,
    **transitions: int,
) -> tuple[ItemPart, ...]:
    """The same rows on several MuJoCo environments."""
    return tuple(
        ItemPart(f"{name}-v5", rows, transitions=n, options=options or {}, variants=variants or {},
                 measured=measured, preset=True)
        for name, n in transitions.items()
    )  # fmt: skip


def _times(name: str, maac: tuple[str, ...], mbpo: str) -> ItemPart:
    """MAAC's Table 1: the paper's seconds are of one of its iterations after 6,000 steps."""
    return ItemPart(
        f"{name}-v5", ("maac", "mbpo"), transitions=6000,
        columns=("iteration [s]", "training model [s]", "optimization [s]"),
        printed={"maac": maac, "mbpo": (mbpo, "–", "–")}, preset=True,
    )  # fmt: skip


def _planned(name: str, with_plan: str, without: str) -> ItemPart:
    return ItemPart(
        f"{name}-v5", ("maac",), transitions=200_000, columns=("with plan", "without"),
        printed={"maac": (with_plan, without)}, options={"plan_horizon": 3}, preset=True,
    )  # fmt: skip


def _unrolled(*horizons: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """RP-DP with and without spectral normalisation, of several h."""
    rows = ("rp-dp", "rp-dp-sn")
    return {f"{row}-h{h}": (row, {"horizons": (h,)}) for h in horizons for row in rows}


def _losses(name: str, epochs: int, own_n: int, own_w: float) -> tuple[ItemPart, ...]:
    """DDPPO's Figure 3 on a task with this n and w: others beside them, one at a time."""
    changed: dict[str, Mapping[str, Any]] = {
        **{f"ddppo-n{n}": {"neighbours": n} for n in (1, 5, 25) if n != own_n},
        **{f"ddppo-w{w:g}": {"loss_weight": w} for w in (0.1, 10.0, 50.0) if w != own_w},
    }
    rows = ("ddppo", *changed, "ddppo-no-gradient-loss", "ddppo-one-model")
    variants = {row: ("ddppo", options) for row, options in changed.items()}
    return _on(rows, None, variants, 0, **{name: 1000 * epochs})


# RP-PGM's Figure 6, beside models of h steps: of one, and with directional derivatives.
_LEARNERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "rp-dp-one-step": ("rp-dp", {"loss": "mse"}), "rp-dp-dd": ("rp-dp", {"loss": "multistep-dd"}),
}  # fmt: skip


# Transitions of DDPPO's figures: epochs of its Table 1 times 1,000; of MAAC's (1, 3, 5) and
# RP-PGM's: read from the figures' axes in the PDFs.
_DDPPO = dict(InvertedPendulum=15_000, Hopper=100_000, Walker2d=100_000, HalfCheetah=100_000,
              Ant=150_000, Humanoid=150_000)  # fmt: skip
ITEMS: Mapping[str, Mapping[str, Item]] = {
    "mpg": {
        "table-1": Item("MPG, Table I", (_PATH, _PENDULUM), ("returns", "convergence")),
        "figure-3": Item("MPG, Fig. 3", (_PATH,), ("returns", "convergence")),
        "figure-4": Item("MPG, Fig. 4", (_PENDULUM,), ("returns", "convergence")),
        "figure-5": Item("MPG, Fig. 5", (_PATH,), ("update-times",)),
        "figure-7": Item("MPG, Fig. 7", (_PATH,), ("tracking",)),
        "figure-8": Item("MPG, Fig. 8", (_PENDULUM,), ("tracking",)),
    },
    "maac": {
        "figure-1": Item(
            "MAAC, Fig. 1",
            _on(("sac", "svg", "steve", "mbpo", "maac"),
                Hopper=200_000, HalfCheetah=200_000, Walker2d=200_000, Ant=200_000),
        ),
        "table-1": Item(
            "MAAC, Table 1",
            (_times("HalfCheetah", ("1312", "486", "738"), "708"),
             _times("Hopper", ("845", "209", "517"), "723")),
            table="table-times",
        ),
        "table-2": Item(
            "MAAC, Table 2",
            (_planned("Ant", "3.97e3 ± 1.48e3", "3.06e3 ± 1.45e3"),
             _planned("HalfCheetah", "1.09e4 ± 94.5", "1.07e4 ± 253"),
             _planned("Hopper", "2.8e3 ± 11", "2.77e3 ± 3.31"),
             _planned("Walker2d", "1.76e3 ± 78", "1.61e3 ± 404")),
            table="table-planning",
        ),
        "figure-2": Item(
            "MAAC, Fig. 2",
            (ItemPart("double_integrator", ("maac",), transitions=2000,
                      options={"horizons": (8,)}, measured=4),),
            ("error-horizon",),
        ),
        "figure-3": Item(
            "MAAC, Fig. 3",
            _on(_MAAC_ABLATIONS, Hopper=200_000, HalfCheetah=200_000, Ant=200_000),
        ),
        "figure-5": Item(
            "MAAC, Fig. 5",
            _on(("maac", "maac-real-data", "maac-no-entropy", "maac-five-batch"),
                Hopper=200_000, HalfCheetah=200_000),
        ),
    },
    "ddppo": {
        "figure-1": Item(
            "DDPPO, Fig. 1",
            _on(("sac", *_MODEL_BASED), None, None, 0, **_DDPPO),
        ),
        "figure-3": Item(
            "DDPPO, Fig. 3",
            _losses("Hopper", 100, 25, 50.0) + _losses("Ant", 150, 5, 0.1),
            ("loss-settings",),
        ),
        "figure-6": Item(
            "DDPPO, Fig. 6",
            _on(("ddppo",), None, None, 0, **_DDPPO),
            ("model-errors",),
        ),
        "figure-5": Item(
            "DDPPO, Fig. 5",
            _on(("ddppo", "ddppo-no-gradient-loss", "ddppo-one-model"), Hopper=100_000,
                Walker2d=100_000, HalfCheetah=100_000, Humanoid=150_000),
        ),
        "figure-7": Item(
            "DDPPO, Fig. 4 and 7",
            _on(("ddppo", "ddppo-double-parameters"), None, None, 0, **_DDPPO),
        ),
    },
    "rp-pgm": {
        "figure-1": Item(
            "RP-PGM, Fig. 1",
            _on(("rp-dp", "rp-dr", "ddpg", "rp-0"), None, {"rp-0": ("rp-dp", {"horizons": (0,)})},
                Hopper=1_000_000, Walker2d=1_000_000),
        ),
        "figure-2": Item(
            "RP-PGM, Fig. 2",
            _on(("rp-dp",), {"horizons": (16,)}, measured=10, Hopper=1_000_000),
            ("gradient-horizons",),
        ),
        "figure-4": Item(
            "RP-PGM, Fig. 4",
            _on((*_unrolled(3, 15),), variants=_unrolled(3, 15), Hopper=1_000_000)
            + _on((*_unrolled(3, 10),), variants=_unrolled(3, 10), Walker2d=1_000_000),
            ("return-horizons",),
        ),
        "figure-5": Item(
            "RP-PGM, Fig. 5",
            _on((*_unrolled(15),), None, _unrolled(15), measured=10, Hopper=1_000_000)
            + _on((*_unrolled(10),), None, _unrolled(10), measured=10, Walker2d=1_000_000),
            ("gradient-horizons",),
        ),
        "figure-6": Item(
            "RP-PGM, Fig. 6",
            _on(("rp-dp", *_LEARNERS), variants=_LEARNERS, Hopper=1_000_000, Walker2d=1_000_000),
        ),
    },
}  # fmt: skip

# Items that no training fills: the commands that do.
_COMMANDS = {
    ("ddppo", "figure-2"): "its left: `gradlab fit TASK --jacobians --loss nll` and `--loss dd`, "
    "then `gradlab figure fit-errors FITS…`; its right is that of figure-5",
    ("ddppo", "figure-4"): "figure-7 has it, with all tasks",
    ("rp-pgm", "figure-3"): "`gradlab measure TASK --model MODEL --surface 3 15`, then "
    "`gradlab figure loss-surface RUNS…`",
}  # fmt: skip


def hours(
    algorithm: str, iterations: int, seeds: int, longer: float = 1.0, preset: bool = False,
    neighbours: int = 0,
) -> float:  # fmt: skip
    """Of one core; `longer`: how many times the horizon of the row's own a variant has; `preset`:
    by the paper's settings; `neighbours`: n of the directional derivatives, of all in a step."""
    price = _ITERATION[algorithm]
    if preset and algorithm in _AT_PRESET:
        price = _AT_PRESET[algorithm] + _NEIGHBOUR * neighbours
    return price * max(longer, 1.0) * iterations * seeds / 3.6e6


def printed(table: str, task: str, row: str) -> dict[str, str]:
    """The paper's cells of a table, by "paper: column"; {} where it prints none."""
    for item in (item for items in ITEMS.values() for item in items.values()):
        for part in item.parts if item.table == table else ():
            if part.task == task and row in part.printed:
                cells = zip(part.columns, part.printed[row], strict=True)
                return {f"paper: {column}": cell for column, cell in cells}
    return {}


def find(paper: str, item: str) -> Item:
    """The item of a paper."""
    if paper not in ITEMS:
        raise InputError(f"paper is {paper!r}, expected one of {', '.join(ITEMS)}")
    if (paper, item) in _COMMANDS:
        raise InputError(
            f"item is {item!r}, for which {paper} needs no run of its own: {_COMMANDS[paper, item]}"
        )
    if item not in ITEMS[paper]:
        raise InputError(f"item is {item!r}, expected one of {', '.join(ITEMS[paper])} of {paper}")
    return ITEMS[paper][item]


def narrowed(item: Item, rows: tuple[str, ...], tasks: tuple[str, ...]) -> Item:
    """The item with some of its rows and tasks."""
    every = list(dict.fromkeys(row for part in item.parts for row in part.rows))
    for name, given, known in (
        ("rows", rows, every), ("tasks", tasks, [part.task for part in item.parts]),
    ):  # fmt: skip
        if unknown := sorted(set(given) - set(known)):
            raise InputError(
                f"{name} has {unknown[0]!r}, expected some of {', '.join(known)} of {item.title}"
            )
    parts = tuple(
        dataclasses.replace(part, rows=tuple(row for row in part.rows if not rows or row in rows))
        for part in item.parts
        if not tasks or part.task in tasks
    )
    return dataclasses.replace(item, parts=parts)
