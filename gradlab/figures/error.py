"""Error, direction and size of every gradient over the horizon, and the sources of a squared bias.

    MSE_n = ‖bias_n‖² + tr Cov_n / N′          (N′: the batch one update averages over)
    cosine_n = ⟨E g_n, g*⟩ / (‖E g_n‖ ‖g*‖)          snr_n = ‖E g_n‖² / tr Cov_n
    sign agreement: the share of parameters that E g_n moves the way g* does
    sample norm: √(‖E g_n‖² + tr Cov_n), the root mean square norm of one sample

Cosine and SNR are noise-corrected: a cosine above 1 is drawn at 1, a ratio not above 0 at the upper
end of its interval. Shares of a squared bias may be negative: where causes cancel, the total is
small beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import exp

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import drawing, style
from gradlab.figures.plots import ENDS, bars, lines, matrix, scaled
from gradlab.figures.style import MUTED, Look
from gradlab.runs.identity import data_of
from gradlab.wording import signed

UNIT = "[(return / parameter)²]"
_NO_TRUTH = "no admissible truth: squared bias and MSE cannot be shown"
_ZERO, _OWN = "zero gradient: worse above", "the truth's own error"


def bias_variance(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    estimator: str = "model",
    batch: int = 256,
    truth_norm2: float | None = None,
    truth_error2: float | None = None,
    kept: Collection[int] = (),
) -> Axes:
    """Squared bias, variance / N′ and MSE of one estimator, the smallest MSE marked.

    Args:
        batch: N′, the number of samples that one update averages.
        truth_norm2: squared norm of the true gradient: the error of not moving at all. Above it
            an estimator is worse than none.
        truth_error2: squared standard error of the true gradient, shaded from below: a squared
            bias inside is as large as the truth's own error.
        kept: horizons that may have the smallest MSE, ringed.
    """
    known = drawing.identities(table)

    def quantity(name: str, of: str) -> pd.DataFrame:
        found = table[(table["estimator"] == of) & (table["quantity"] == name)]
        return scaled(found, 1 / batch) if name == "variance" else found

    # The sum first, so that whichever part makes it up stays visible on top of it.
    parts = {"mse": style.MSE, "bias2": style.BIAS, "variance": style.variance_look(batch)}
    shown = {look: quantity(name, estimator) for name, look in parts.items()}
    judged, data = shown[style.MSE]["value"].notna().any(), data_of(known)
    if data not in (None, estimator) and any(map(len, shown.values())):
        name, what = ("mse", "MSE") if judged else ("variance", "variance / N′")
        look = Look(f"{what} of data (critic only)", MUTED, (0, (7, 2.5)), "")
        shown[look] = quantity(name, str(data))
    label = style.looks([estimator], known)[estimator].label
    return lines(
        shown, ax, f"Error of the gradient: {label}", f"squared error {UNIT}", log=True,
        chosen=style.MSE, widths=(style.STRONG, 1.8), bands=(0.17, 0.17, 0.17), kept=kept,
        star="smallest MSE", empty=f"no rows for the estimator {style.plain(estimator)}",
        notes=[] if judged else [_NO_TRUTH], thresholds={_ZERO: truth_norm2},
        shade={_OWN: truth_error2 if judged else None},
    )  # fmt: skip


def mse(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    truth_norm2: float | None = None,
    truth_error2: float | None = None,
    chosen: str | None = None,
) -> Axes:
    """The MSE of every estimator over the horizon, each one's smallest marked.

    Args:
        truth_norm2, truth_error2: as of `bias_variance`.
        chosen: the recommended estimator, drawn strong.
    """
    return lines(
        table, ax, "Error of every gradient", f"MSE {UNIT}", quantity="mse", log=True,
        chosen=chosen, star="", notes=["star: the smallest"], empty=_NO_TRUTH,
        thresholds={_ZERO: truth_norm2}, shade={_OWN: truth_error2},
    )  # fmt: skip


def cosine(table: pd.DataFrame, ax: Axes | None = None, *, chosen: str | None = None) -> Axes:
    """Cosine of the mean gradient with the true one, every estimator, `chosen` drawn strong."""
    return lines(
        table, ax, "Direction: cosine with the true gradient", "cosine", quantity="cosine",
        chosen=chosen, limits=(-1, 1), level=0, within={"usable from 0.7": 0.7},
        empty="no cosine: the truth or its norm is not known",
    )  # fmt: skip


def sign_agreement(
    table: pd.DataFrame, ax: Axes | None = None, *, chosen: str | None = None
) -> Axes:
    """Share of parameters whose step has the true sign, `chosen` drawn strong; ½ is chance."""
    return lines(
        table, ax, "Direction: signs that agree with the truth", "share of parameters",
        quantity="sign_agreement", chosen=chosen, limits=(0, 1), thresholds={"chance: ½": 0.5},
        empty="no sign agreement in this table",
    )  # fmt: skip


def snr(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    batch: int | None = None,
    chosen: str | None = None,
) -> Axes:
    """Squared mean over variance per sample, every estimator.

    Args:
        batch: N′; a line at 1 / N′ then shows where the mean of one batch is half noise.
        chosen: the recommended estimator, drawn strong.
    """
    return lines(
        table, ax, "Noise: signal-to-noise ratio of one sample", "‖mean‖² / variance",
        quantity="snr", log=True, chosen=chosen, empty="no signal-to-noise ratio in this table",
        thresholds={f"1 / N′, N′ = {batch}: half noise": 1 / batch if batch else None},
    )  # fmt: skip


def sample_norm(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    exponent: float | None = None,
    chosen: str | None = None,
) -> Axes:
    """Root mean square norm of one sample of every estimator.

    Args:
        exponent: λ + ln γ per step; drawn as a line through the judged estimator's last point.
        chosen: the recommended estimator, drawn strong.
    """
    looks, shown = drawing.looks(table), dict[Look, pd.DataFrame]()
    for name, look in looks.items():
        own = table[table["estimator"] == name].set_index("horizon")
        mean = own.loc[own["quantity"] == "mean_norm", "value"].replace(np.inf, np.nan)
        # The interval is the variance's, which dominates where it matters.
        square = own.loc[own["quantity"] == "variance", ENDS].clip(lower=0)
        if len(mean):
            shown[look] = square.add(mean.fillna(0) ** 2, axis=0).pow(0.5).reset_index()
    judged = next((own for own in shown.values() if own["horizon"].max() > 0), None)
    if exponent is not None and judged is not None:
        own = judged[np.isfinite(judged["value"]) & (judged["value"] > 0)].sort_values("horizon")
        later = own["horizon"] - own["horizon"].max()
        y = own["value"].tail(1).sum() * np.exp(exponent * later)
        chain = own.assign(value=y, ci_low=y, ci_high=y)[y > own["value"].min() / 10]
        label = f"simulator's chain: × {exp(exponent):.3g} a step"
        shown[Look(label, style.PURPLE, (0, (1, 1.2)), "")] = chain
    ax = lines(
        shown, ax, "Growth: size of one sample's gradient", "norm, rms [return / parameter]",
        log=True, chosen=looks.get(chosen or ""), within={"range of float32": 3.4e38},
        empty="no norms in this table",
    )  # fmt: skip
    ax.autoscale(axis="y")  # no bound needs room below
    return ax


_CAUSES: Mapping[str, Look] = {
    "states": Look("states", MUTED, (0, (7, 2.5)), "v"),
    "A": Look("∂f/∂s", style.BLUE, "-", "o"),
    "B": Look("∂f/∂a", style.VERMILION, (0, (5, 1.6)), "s"),
    "reward": Look("reward gradient", style.GREEN, (0, (1.2, 1.4)), "^"),
    "critic_s": Look("critic ∇_s", style.PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"),
    "critic_a": Look("critic ∇_a", style.OCHRE, (0, (3, 1.2, 1, 1.2)), "P"),
}


def ledger(table: pd.DataFrame, ax: Axes | None = None, *, estimator: str = "model") -> Axes:
    """Shapley shares of one estimator's squared bias at every attributed horizon; below 0 where a
    cause hides another."""
    rows, name = _attributed(table, estimator)
    rows = rows[(rows["kind"] == "shapley") & np.isfinite(rows["fraction"].astype(float))]
    ends = dict(zip(ENDS, ("fraction", "fraction_low", "fraction_high"), strict=True))
    rows = rows.assign(output=rows["horizon"], **{to: rows[of] for to, of in ends.items()})
    return bars(
        {look: rows[rows["cause"] == cause] for cause, look in _CAUSES.items()}, ax,
        "Where the squared bias comes from", "share of the squared bias", percent=True,
        along="horizon n [steps]", notes=[name, "bar: 95%"],
        empty=f"nothing attributed for the estimator {style.plain(estimator)}",
    )  # fmt: skip


def entries(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    estimator: str = "model",
    horizon: int | None = None,
) -> Axes:
    """Which entry of [∂f/∂s ∂f/∂a; ∂r; ∇Q] makes the squared bias, as a map.

    Args:
        horizon: None: the longest whose total is distinguishable from zero, else the longest.
    """
    rows, name = _attributed(table, estimator)
    totals = rows[rows["kind"] == "total"]
    sure = totals[totals["ci_low"] > 0]["horizon"]
    if horizon is None and len(totals):
        horizon = int(sure.max() if len(sure) else totals["horizon"].max())
    rows, positive = rows[rows["horizon"] == horizon], horizon in set(sure)
    column = "fraction" if positive else "value"
    of_states = rows["cause"] == "states"
    rest = rows.loc[of_states & (rows["kind"] == "shapley"), column].sum()
    written = signed(f"{rest:.0%}" if positive else f"{rest:.2g}")
    return matrix(
        rows[~of_states & (rows["kind"] == "entry")], ax, "Which derivative makes the squared bias",
        "share of the squared bias" if positive else "squared gradient norms", value=column,
        percent=positive, least=0.005 * positive,
        notes=[f"{name}, h = {horizon}; beside the map: {written} from the states",
               *([] if positive else ["the total is not distinguishable from zero"]),
               "empty: exactly 0; hatched: negative"],
        empty=f"nothing attributed for the estimator {style.plain(estimator)}",
    )  # fmt: skip


def _attributed(table: pd.DataFrame, estimator: str) -> tuple[pd.DataFrame, str]:
    """The rows of a squared bias, and what the estimator is called."""
    rows = table[(table["account"] == "bias") & (table["estimator"] == estimator)]
    return rows, style.looks([estimator], drawing.identities(table))[estimator].label
