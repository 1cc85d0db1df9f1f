"""Every number as HTML: collapsible, sortable tables, those of a profile one per quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

import pandas as pd

QUANTITIES = {
    "mse": "Mean squared error of one batch",
    "relative_mse": "Mean squared error over that of a zero gradient",
    "bias2": "Squared bias",
    "variance": "Variance of one sample (trace of the covariance)",
    "variance_critics": "Variance of the mean across critics",
    "gain": "Gain of one small step, as a share of the best step of its length",
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


def tables(table: pd.DataFrame) -> str:
    """<details> per quantity, the known ones first, closed."""
    found = [str(name) for name in dict.fromkeys(table["quantity"])]
    order = [name for name in QUANTITIES if name in found]
    order += [name for name in found if name not in QUANTITIES]
    return "\n".join(
        folded(QUANTITIES.get(name, name), table[table["quantity"] == name], HEADINGS, name)
        for name in order
    )


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


def folded(title: str, rows: pd.DataFrame, headings: Mapping[str, str], code: str = "") -> str:
    """<details> with a table that sorts by value, closed.

    Args:
        headings: column of `rows` → what the page calls it.
        code: the quantity's name in files.
    """
    head = "".join(
        f'<th scope="col"><button type="button">{heading}</button></th>'
        for heading in headings.values()
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(value) for value in values)}</tr>"
        for values in zip(*(rows[name].tolist() for name in headings), strict=True)
    )
    named = f" <code>{escape(code)}</code>" if code else ""
    return (
        f"<details><summary>{escape(title)}{named} <small>{len(rows)} rows</small></summary>\n"
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div></details>"
    )


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f'<td data-v="{value!r}">{number(value)}</td>'
    return f"<td>{escape(str(value))}</td>"
