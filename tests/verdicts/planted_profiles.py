"""Profiles whose mean squared error, direction and noise are laws of the horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.findings import Finding
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import QUANTITIES, Estimate
from gradlab.verdicts.measurement.verdict import verdict
from tests.runs.planted_gains import planted_jumps

GROUPS, H = 60, 12
Law = Callable[[int], float]


def planted(
    mse: Law,
    cosine: Law,
    variance: Law = lambda n: 1.0,
    data: float = 3.0,
    noise: float = 0.02,
    snr: float | None = None,
    tails: Law | None = None,
    **truth: object,
) -> Profile:
    """A model profile with relative jackknife error `noise`, and J_0 beside it."""
    rng = np.random.default_rng(0)
    shape = (2, len(QUANTITIES), H + 1)
    columns = {name: np.full(shape, np.nan) for name in ("value", "se", "ci_low", "ci_high")}
    count, method = np.zeros(shape, dtype=np.int64), np.full(shape, "planted", dtype=object)
    left_out = np.full((*shape, GROUPS), np.nan)

    def fill(e: int, quantity: str, n: int, value: float, spread: float) -> None:
        cell = e, QUANTITIES.index(quantity), n
        wobble = rng.normal(size=GROUPS)
        wobble = (wobble - wobble.mean()) / wobble.std() * spread / np.sqrt(GROUPS)
        left_out[cell] = value + wobble
        found = interval(quantity, Estimate(value, left_out[cell]))
        columns["value"][cell], columns["se"][cell] = value, found.se
        columns["ci_low"][cell], columns["ci_high"][cell] = found.low, found.high
        count[cell] = 256

    for n in range(H + 1):
        laws = {"mse": mse(n), "cosine": cosine(n), "variance": variance(n), "bias2": mse(n) / 2}
        laws["relative_mse"] = mse(n) / max(float(truth.get("norm", 2.0)), 0.1) ** 2
        laws |= {} if snr is None else {"snr": snr}
        laws |= {} if tails is None else {"tail_index": tails(n)}
        for quantity, value in laws.items():
            relative = noise / 2 if quantity == "cosine" else noise
            fill(1, quantity, n, value, relative * abs(value))
    beside = {"mse": data, "cosine": 0.8, "variance": 5.0, "bias2": 1.0, "relative_mse": data / 4}
    for quantity, value in beside.items():
        fill(0, quantity, 0, value, noise * value)
    facts = {"admissible": True, "status": "converged", "standard_error": 0.1, "norm": 1.0} | truth
    config = {"starts": 256, "batch": 256}
    names, horizons = ("data", "model"), tuple(range(H + 1))
    environment = {"measured_seconds": "30"}
    return Profile(
        names, QUANTITIES, horizons, columns, count, method, left_out, config, environment, facts
    )


def said(profile: Profile) -> dict[str, object]:
    return {sentence.code: sentence for sentence in verdict(profile)}


def u_shape(n: int) -> float:
    return 1.0 + 0.3 * (n - 5) ** 2 / 4


FLAT = planted(lambda n: 1.0, lambda n: 0.9)


FINE = Finding("float32", "pass", "model", 1e-7, threshold=0.01, at="h = 5")
BAD = Finding("actions_saturated", "fail", "action 0", 0.9, threshold=0.5)
CUT = {"status": "cut", "reason": "the objective is cut at T = 40 steps", "lyapunov": 0.1}


def profile(**changed: Any) -> Profile:
    """`FLAT` with other laws, facts of the truth, configuration, checks or jumps."""
    beside = {name: changed.pop(name) for name in ("sanity", "jumps") if name in changed}
    config = changed.pop("config", {})
    found = planted(**{"mse": lambda n: 1.0, "cosine": lambda n: 0.9} | changed)
    return replace(found, config={**found.config, **config}, **beside)


def grows(n: int) -> float:
    return 2 ** (n / 1.8)


def lost_beyond_8(n: int) -> float:
    return np.nan if n > 8 else 1.0


def jumps(kind: str, **more: Any) -> dict[str, object]:
    return {"jumps": planted_jumps(kind, **more)}


# What is planted, by what its findings are about (`tests.verdicts.golden`, sentences.txt), and how
# their codes begin.
FAMILIES = {
    "tails": ("heavy_tails",),
    "horizon": ("usable_", "no_usable", "best_horizon", "longest_", "data_", "above_"),
    "health": ("gradient_not_finite",),
    "variance": ("variance_",),
    "truth": ("truth_",),
    "sanity": ("saturated actions",),
    "jumps": ("jumps",),
}
SENTENCES: dict[str, tuple[dict[str, Any], ...]] = {
    "tails": (
        dict(mse=u_shape, tails=lambda n: 2.5 if n > H - 3 else 1.0),
        dict(mse=u_shape, tails=lambda n: 2.0),
    ),
    "horizon": (
        dict(cosine=lambda n: 0.9 if n <= 7 else 0.5),
        dict(cosine=lambda n: 0.9 if n >= 6 else -0.5),
        dict(mse=u_shape), dict(cosine=lambda n: 0.3),
        dict(cosine=lambda n: 0.705, noise=0.01),
        dict(cosine=lambda n: 0.9 if n > 3 else 0.705, noise=0.01),
        dict(mse=lambda n: 1.0 + 0.01 * abs(n - 5), noise=0.1),
        dict(data=1.0, noise=1e-4), dict(mse=lambda n: 4.0, norm=1.0),
        dict(mse=lambda n: 4.0, cosine=lambda n: -0.6, norm=1.0), dict(mse=lambda n: 0.5),
        dict(mse=lambda n: 1.0 + n / 4), dict(mse=lost_beyond_8, variance=lost_beyond_8),
        dict(status="imprecise", standard_error=0.5, missing=768),
    ),
    "health": (dict(mse=lost_beyond_8, variance=lost_beyond_8),),
    "variance": (
        dict(variance=grows), dict(variance=grows, lyapunov=0.19),  # ln 2 / 0.38 = 1.8
        dict(variance=grows, lyapunov=-0.1), dict(variance=lambda n: 1.0 * max(n, 1) ** 2), {},
        dict(variance=lambda n: 1.05**n, noise=0.001),
        dict(variance=lambda n: max(n, 1) ** 1.5 * (1 + 0.3 * (-1.0) ** n)),
    ),
    "truth": (
        dict(reason="it converges", standard_error=0.03, norm=1.5),
        dict(reason="it converges", all_standard_error=0.2, all_norm=1.0,
             config={"actions": {"model": "all"}}),
        CUT | dict(config={"discount": 0.98}),
        CUT | dict(config={"discount": 0.98}, horizon=H + 28),  # e^{28 (0.1 + ln 0.98)} = 9.3
        CUT | dict(config={"discount": 0.98}, lyapunov=0.01),
        dict(admissible=False, status="none", reason="no truth here: λ = 0.3"),
        dict(status="imprecise", standard_error=0.5, missing=768),
        dict(status="imprecise", standard_error=0.3, missing=-1, norm=0.0),
        dict(status="imprecise", concentration=0.83, carried_by_few=True, missing=0),
    ),
    "sanity": (dict(sanity=(FINE, BAD)),),
    "jumps": (
        *map(jumps, ("harmful", "harmless", "rough", "curved", "smooth")),
        jumps("open", missing=300), jumps("open", missing=-1, lost=(0, 3, 9)),
        jumps("harmful", lost=(0, 0, 9)),
        jumps("rough", starts=np.arange(5), states=np.ones((5, 2)), at=np.full(5, 3)),
    ),
}  # fmt: skip
