"""The audit of intervals: what it found, and what the coverage campaign has now.

    python -m analyses.coverage.audit_table [--folder reports/coverage]

The audit counted coverage with closed forms and gradients of its own; "now" is the campaign's
count in the cells that are like the audit's (`analyses.coverage`, `.gain_coverage`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import tyro

HEAVY_ROWS = ("variance", "mse", "relative_mse", "snr")
BEFORE = {
    ("t4.5", "variance"): "N = 64 / 256: .48 / .57",
    ("t4.5", "mse"): ".77 / .74",
    ("t4.5", "relative_mse"): ".57 / .55",
    ("t9", "mse"): "N = 64: .911, least .854",
    ("t9", "relative_mse"): ".881, least .738",
    ("t9", "snr"): ".839",
}


def main(folder: Path = Path("reports/coverage")) -> None:
    """Print the table.

    Args:
        folder: of coverage.csv and gain.csv.
    """
    table, gains = pd.read_csv(folder / "coverage.csv"), pd.read_csv(folder / "gain.csv")
    rows = [*_cosine(gains), *_tails(table), *_flags(table), *_others(table)]
    print("\n".join(["row | before | now", "--- | --- | ---", *(" | ".join(row) for row in rows)]))


def _cosine(gains: pd.DataFrame) -> list[tuple[str, ...]]:
    small = gains[gains["n"] == 64]
    now = (
        f"{small['coverage'].mean():.3f}, least {small['coverage'].min():.3f}; too optimistic "
        f"{small['too_good'].mean():.3f}, too pessimistic {small['too_bad'].mean():.3f}"
    )
    before = ".909–.926, every miss on the optimistic side"
    return [("cosine, Gaussian starts, N = 64", before, now)]


def _tails(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """By samples: coverage on average and least, and the share that the check flags."""
    rows = []
    for (law, quantity), before in BEFORE.items():
        part = table[
            (table["family"] == "starts")
            & (table["tails"] == law)
            & (table["quantity"] == quantity)
        ]
        now = "; ".join(
            f"N = {n}: {cells['coverage'].mean():.3f}, least {cells['coverage'].min():.3f}, "
            f"flagged {cells['flagged'].mean():.0%}"
            for n, cells in part.groupby("n")
        )
        rows.append((f"{quantity}, {law} starts", before, now))
    return rows


def _flags(table: pd.DataFrame) -> list[tuple[str, ...]]:
    part = table[
        table["family"].isin(["starts", "measured"])
        & table["quantity"].isin(HEAVY_ROWS)
        & (table["tails"] == "Gaussian")
    ]
    now = f"{part['flagged'].mean():.1%}, at most {part['flagged'].max():.0%} in a cell"
    return [("flag of tails under Gaussian starts", "100%", now)]


def _others(table: pd.DataFrame) -> list[tuple[str, ...]]:
    seeds = table[table["family"] == "seeds"].set_index("cell")["coverage"]
    chosen = table[table["family"] == "chosen"].groupby(["n", "quantity"])["coverage"].mean()
    bias = table[(table["quantity"] == "bias2") & (table["family"] == "planted")]
    none = bias["cell"].str.startswith("rho 0,")
    at = chosen.index.get_level_values("n").unique()
    chosen_now = "; ".join(
        f"N = {n}: {chosen[n, 'mse of the chosen']:.3f} "
        f"(as if not chosen {chosen[n, 'the same as if not chosen']:.3f})"
        for n in at
    )
    return [
        ("median of five Gaussian seeds", ".896", f"{seeds['all five there']:.3f}"),
        ("the same, one seed in five lost", ".67", f"{seeds['one in five lost']:.3f}"),
        ("MSE of the chosen cell", "N = 64: .923", chosen_now),
        (
            "squared bias, planted",
            ".983",
            f"{bias[~none]['coverage'].mean():.3f}, where there is none "
            f"{bias[none]['coverage'].mean():.3f} (.975 is nominal there)",
        ),
    ]


if __name__ == "__main__":
    tyro.cli(main)
