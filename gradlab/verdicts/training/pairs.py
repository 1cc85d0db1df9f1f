"""Two training runs with the same seeds, with and without a remedy, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradlab.runs.training.pairs import OWN, WHOLE, Pair, pairs
from gradlab.runs.training.results import Training
from gradlab.verdicts.screen import Sentence
from gradlab.wording import span, times, two


def paired_verdict(runs: Mapping[str, Training]) -> list[Sentence]:
    """Every run against the first: return and gradient error, and what both say together."""
    base, *others = runs
    sentences = (_sentence(name, runs[name], base, runs[base]) for name in others)
    return [each for each in sentences if each is not None]


def _sentence(name: str, run: Training, base: str, first: Training) -> Sentence | None:
    paired = {pair.quantity: pair for pair in pairs(first, run)}
    final, whole = (paired.get(q) for q in ("final return", "mean return over the run"))
    if final is None or whole is None:
        return None
    whole_error, own_error = paired.get(WHOLE), paired.get(OWN)
    parts = [
        f"final return {_signed(final)}",
        f"return averaged over the run {_signed(whole)}",
        *_error("relative gradient MSE", whole_error),
        *_error("the model's own part of it", own_error),
    ]
    shared = len(np.intersect1d(first.seeds, run.seeds))
    lost = f" of {shared}, the others diverged" if final.seeds < shared else ""
    says = f"{name} against {base}, paired over {final.seeds} seeds{lost}: {', '.join(parts)}"
    judged = {"the return": final.side}
    judged |= {"the gradient": -whole_error.side} if whole_error else {}
    judged |= {"the model's part": -own_error.side} if own_error else {}
    moved = {1: "better", -1: "worse", 0: "not shown to change"}
    clauses = ", ".join(f"{what} is {moved[side]}" for what, side in judged.items())
    text = f"{says}: {clauses}."
    if first.config.get("given_networks", {}) != run.config.get("given_networks", {}):
        text += " The runs begin with different networks: the difference holds that, too."
    return Sentence("remedy", any(judged.values()), text)


def _error(what: str, pair: Pair | None) -> list[str]:
    if pair is None:
        return []
    ends = span(pair.low, pair.high)
    return [f"{what} {times(pair.change)} [{ends}] ({pair.measurements:.0f} measurements a seed)"]


def _signed(pair: Pair) -> str:
    sign = "+" if pair.change > 0 else ""
    return f"{sign}{two(pair.change)} [{span(pair.low, pair.high)}]"
