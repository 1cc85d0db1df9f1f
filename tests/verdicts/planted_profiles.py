"""Profiles whose mean squared error, direction and noise are laws of the horizon."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import QUANTITIES, Estimate
from gradlab.verdicts.measurement.verdict import verdict

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
    environment = {"wall_seconds": "30"}
    return Profile(
        names, QUANTITIES, horizons, columns, count, method, left_out, config, environment, facts
    )


def directed(cosine: float, snr: float, noise: float = 0.02) -> Profile:
    """Every horizon with the same cosine of the mean and the same signal-to-noise ratio."""
    return planted(lambda n: 1.0, lambda n: cosine, noise=noise, snr=snr)


def said(profile: Profile) -> dict[str, object]:
    return {sentence.about: sentence for sentence in verdict(profile)}


def u_shape(n: int) -> float:
    return 1.0 + 0.3 * (n - 5) ** 2 / 4


FLAT = planted(lambda n: 1.0, lambda n: 0.9)
