"""The same samples at another batch size N′: MSE = bias² + variance / N′, exactly.

The expected cosine of one batch needs the variance along the truth, too, which kernels have. A cell
without a kernel is led from its measured cosine by how noise lengthens the mean of a batch,

    E cos(N′) ≈ E cos(N) √((1 + 1/(N snr)) / (1 + 1/(N′ snr))),     snr = |E G|² / tr Cov G,

exact at N′ = N, and where the noise across the truth is nearly all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from gradlab.choice.candidates import kind_of
from gradlab.choice.values import Cell
from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, combine, estimates

Singles = Mapping[Cell, Moments]


def singles(profile: Profile, cells: Iterable[Cell]) -> Singles:
    """Moments of single estimators, where kernels have them."""
    kernels = {each.kind: each for each in profile.kernels if each.truth}
    found = {}
    for cell in cells:
        kernel = kernels.get(kind_of(profile, cell[0]))
        if kernel is not None and cell in kernel.cells:
            try:
                found[cell] = mixture_moments(kernel.grams([cell]), np.ones(1))
            except InputError:  # gradients that are not finite have no moments
                continue
    return found


def at_batch(profile: Profile, batch: int, measured: Singles) -> Profile:
    """The profile as if it had been measured for batches of N′ = `batch`.

    Args:
        measured: moments of single cells (`singles`); where there are none at all, as in files of
            older versions, cosines of one batch are lost (not finite).
    """
    if batch == profile.batch or "mse" not in profile.quantities:
        return replace(profile, config={**profile.config, "batch": batch})
    columns = {name: values.copy() for name, values in profile.columns.items()}
    left_out = profile.left_out.copy()
    q = profile.quantities.index("mse")
    for e, h in np.argwhere(profile.count[:, q] > 0):
        cell = profile.estimators[e], profile.horizons[h]
        for quantity, estimate in _anew(profile, cell, batch, measured).items():
            at = e, profile.quantities.index(quantity), h
            ends = interval(quantity, estimate)
            numbers = estimate.value, ends.se, ends.low, ends.high
            for name, number in zip(("value", "se", "ci_low", "ci_high"), numbers, strict=True):
                columns[name][at] = number
            left_out[at] = estimate.left_out
    config = {**profile.config, "batch": batch}
    return replace(profile, columns=columns, left_out=left_out, config=config)


def _anew(profile: Profile, cell: Cell, batch: int, measured: Singles) -> dict[str, Estimate]:
    """What depends on N′."""
    bias2, variance, mse, relative = (
        profile.estimate(cell[0], name, cell[1])
        for name in ("bias2", "variance", "mse", "relative_mse")
    )
    error = combine(lambda b, v: b + v / batch, bias2, variance)
    if cell in measured:
        cosine = estimates(measured[cell], batch)["cosine_batch"]
    elif measured:
        cosine = _led(profile, cell, batch)
    else:
        cosine = Estimate(np.nan, np.full_like(mse.left_out, np.nan))
    scaled = combine(lambda e, m, r: e * r / m, error, mse, relative)
    return {"mse": error, "relative_mse": scaled, "cosine_batch": cosine}


def _led(profile: Profile, cell: Cell, batch: int) -> Estimate:
    """The cosine of one batch at another size, without the variance along the truth."""
    cosine, snr = (profile.estimate(cell[0], name, cell[1]) for name in ("cosine_batch", "snr"))
    N = profile.batch
    return combine(lambda c, s: c * np.sqrt((1 + 1 / (N * s)) / (1 + 1 / (batch * s))), cosine, snr)
