"""Every number of a profile as HTML: one collapsible, sortable table per quantity."""

from __future__ import annotations

import math
from html import escape

import pandas as pd

QUANTITIES = {
    "mse": "Mean squared error of one batch",
    "relative_mse": "Mean squared error over that of a zero gradient",
    "bias2": "Squared bias",
    "variance": "Variance of one sample (trace of the covariance)",
    "variance_critics": "Variance of the mean across critics",
    "cosine": "Cosine of the mean with the truth",
    "cosine_batch": "Expected cosine of one batch with the truth",
    "sign_agreement": "Share of parameters whose sign agrees with the truth",
    "snr": "Signal-to-noise ratio of one sample",
    "mean_norm": "Norm of the mean",
    "tail_index": "Heaviness of the tails of one sample (1: Gaussian, above 1.2: heavy)",
}
HEADINGS = {
    "estimator": "estimator",
    "horizon": "horizon",
    "value": "value",
    "se": "standard error",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "n",
    "method": "interval by",
}
_TEXT = ("estimator", "method")
_WHOLE = ("horizon", "n")


def tables(table: pd.DataFrame) -> str:
    """<details> per quantity, the known ones first, closed."""
    found = [str(name) for name in dict.fromkeys(table["quantity"])]
    order = [name for name in QUANTITIES if name in found]
    order += [name for name in found if name not in QUANTITIES]
    return "\n".join(_quantity(name, table[table["quantity"] == name]) for name in order)


def number(value: object) -> str:
    """Four significant digits; integers whole; a dash for what is not there."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return (
            f"{value:.4g}" if math.isfinite(value) else ("–" if math.isnan(value) else f"{value:+}")
        )
    return escape(str(value))


def _quantity(name: str, rows: pd.DataFrame) -> str:
    title = escape(QUANTITIES.get(name, name))
    head = "".join(
        f'<th scope="col"><button type="button">{heading}</button></th>'
        for heading in HEADINGS.values()
    )
    columns = [rows[name].tolist() for name in HEADINGS]
    body = "\n".join(_row(values) for values in zip(*columns, strict=True))
    return (
        f"<details><summary>{title} <code>{escape(name)}</code> "
        f"<small>{len(rows)} rows</small></summary>\n"
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div></details>"
    )


def _row(values: tuple[object, ...]) -> str:
    cells = (_cell(name, value) for name, value in zip(HEADINGS, values, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(name: str, value: object) -> str:
    if name in _TEXT:
        return f"<td>{escape(str(value))}</td>"
    exact = float(value) if isinstance(value, int | float) else math.nan
    shown = f"{exact:.0f}" if name in _WHOLE and math.isfinite(exact) else number(exact)
    return f'<td data-v="{exact!r}">{shown}</td>'
