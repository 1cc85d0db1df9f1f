"""Quantities of a gradient: one row each, read by everything that names quantities.

G_i are an estimator's gradients, T_i the truth's, N′ the size of a batch; E runs over samples.
Every value is estimated from pairs of different groups (`statistics.moments`) and its interval by
the method that its row names (`statistics.intervals`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NORM, SQUARE = "return / parameter", "(return / parameter)²"
_POSITIVE = (0.0, float("inf"))
DIRECTION, SHARE = (-1.0, 1.0), (0.0, 1.0)
_MOMENTS = "gradlab/statistics/moments.py"


@dataclass(frozen=True)
class _Quantity:
    """One column of a measurement.

    Attributes:
        name: as in tables and files; title: for readers; unit: "" for a plain number.
        formula: what is estimated; source: where it is defined, a paper's equation or a file.
        interval: name of the method in `statistics.intervals`.
        range: values that the quantity can have; estimates, noise-corrected, may leave it.
        needs: "nothing", a "truth", or a truth that is the gradient of the "return".
        per_batch: it is stated for a batch of N′.
        clipped: an estimate beyond its range or its interval is reported at the end.
    """

    name: str
    title: str
    unit: str
    formula: str
    source: str
    interval: str
    range: tuple[float, float]
    needs: Literal["nothing", "truth", "return"]
    per_batch: bool = False
    clipped: bool = False

    def reported(self, value: float, low: float, high: float) -> float:
        """The estimate as tables and files have it; values with a group left out stay raw.

        Where the row says so it is moved into its range, and into its interval: the ends of a gain
        know the bias of the plain estimate.
        """
        if not self.clipped or value != value:
            return value
        value = min(max(value, self.range[0]), self.range[1])
        return min(max(value, low), high) if low <= high else value


TABLE = (
    _Quantity(
        "mean_norm", "Norm of the mean", NORM,
        "|E G|", _MOMENTS, "norm", _POSITIVE, "nothing",
    ),
    _Quantity(
        "variance", "Variance of one sample (trace of the covariance)", SQUARE,
        "tr Cov G = E |G|² − |E G|²", _MOMENTS, "plain", _POSITIVE, "nothing",
    ),
    _Quantity(
        "variance_critics", "Variance of the mean across critics", SQUARE,
        "Σ_c |E G(c) − mean over critics|² / (C − 1)", _MOMENTS, "squared norm", _POSITIVE,
        "nothing",
    ),
    _Quantity(
        "bias2", "Squared bias", SQUARE,
        "|E G − E T|²", _MOMENTS, "squared norm", _POSITIVE, "truth",
    ),
    _Quantity(
        "mse", "Mean squared error of one batch", SQUARE,
        "|E G − E T|² + tr Cov G / N′", _MOMENTS, "root", _POSITIVE, "truth", per_batch=True,
    ),
    _Quantity(
        "relative_mse", "Mean squared error over that of a zero gradient", "",
        "(|E G − E T|² + tr Cov G / N′) / |E T|²", _MOMENTS, "root", _POSITIVE, "truth",
        per_batch=True,
    ),
    _Quantity(
        "gain", "Gain of one small step, as a share of the best step of its length", "",
        "⟨E G, ∇J⟩ / (|E G| |∇J|), ∇J the gradient of the return", _MOMENTS, "direction",
        DIRECTION, "return", clipped=True,
    ),
    _Quantity(
        "cosine", "Cosine of the mean with the truth", "",
        "⟨E G, E T⟩ / (|E G| |E T|), by noise beyond ±1 and its interval", _MOMENTS, "direction",
        DIRECTION, "truth",
    ),
    _Quantity(
        "cosine_batch", "Expected cosine of one batch with the truth", "",
        "E ⟨Ḡ, E T⟩ / (|Ḡ| |E T|), Ḡ the mean of N′ samples",
        "gradlab/statistics/moments.py", "batch direction", DIRECTION, "truth", per_batch=True,
    ),
    _Quantity(
        "sign_agreement", "Share of parameters whose sign agrees with the truth", "",
        "mean over parameters of [sign E G_p = sign E T_p]", "gradlab/statistics/grams.py",
        "share", SHARE, "truth",
    ),
    _Quantity(
        "snr", "Signal-to-noise ratio of one sample", "",
        "|E G|² / tr Cov G", _MOMENTS, "root", _POSITIVE, "nothing",
    ),
    _Quantity(
        "tail_index", "Heaviness of the tails of one sample (1: Gaussian, above 1.2: heavy)", "",
        "mean over directions v of E (v·x)⁴ / (3 (E (v·x)²)²), x = G − E G",
        "gradlab/statistics/tails.py", "logarithm", _POSITIVE, "nothing",
    ),
)  # fmt: skip
QUANTITIES = {quantity.name: quantity for quantity in TABLE}
