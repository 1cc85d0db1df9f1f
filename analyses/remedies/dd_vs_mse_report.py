"""DD-VS-MSE in words, from its tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analyses.harness.paired_trials import told

ALL = "all"  # the name under which all worlds are taken together
MAIN = "w = 10, equal time"
WHAT = {"bias2": "bias² of the policy gradient", "jacobian": "Jacobian MSE"}
ANSWERS = ("better", "worse", "alike", "undecided")


def sentence(
    table: pd.DataFrame, near: pd.DataFrame, times: float, alone: Sequence[tuple[str, float]]
) -> str:
    """The verdict.

    Args:
        table: of `comparison`; near: of `foreseen`; times: what a step with the loss costs.
        alone: worlds (name, noise) without which the others together decide no size.
    """
    single, whole = table[table["world"] != ALL], table[table["world"] == ALL]
    timed = _of(single, "bias2", MAIN)
    cosine = _of(single, "cosine_10", MAIN)
    moved = cosine[(cosine["ci_low"] > 0) | (cosine["ci_high"] < 0)]
    opening = f"{_opening(table, alone)}{_rests(table, alone)}"
    cells = timed.groupby(["world", "noise"], sort=False)
    by_world = "; ".join(f"{named(*key)}: {_by_size(rows)}" for key, rows in cells)
    found = agreement(near)
    foretold = "; ".join(
        f"{word} ({found[f'trials where neighbours {word}']:.0f} fits): lower Jacobian error in "
        f"{found[f'jacobian lower where neighbours {word}']:.0%}, lower bias² in "
        f"{found[f'bias2 lower where neighbours {word}']:.0%}"
        for word in sorted(near["said"].unique())
    )
    return (
        f"{opening} {' '.join(_weight(single, whole, w) for w in ('10', '1'))} "
        f"{_jacobian_alone(single)} "
        f"Each system, w = 10, equal time, bias²: {by_world}. Cosines at h = 10 differ "
        f"beyond their interval in {len(moved)} of {len(cosine)} cells, by at most "
        f"{cosine['value'].abs().max():.2g}. Foretold from the data: {foretold}."
        f"{_missing(timed)} A step with the loss took {times:.2g} times as long. N = "
        f"{int(timed['n'].min())} trials; 2×64 SiLU, reward known."
    )


def _rests(table: pd.DataFrame, alone: Sequence[tuple[str, float]]) -> str:
    """The systems that alone carry the answer for all of them."""
    if not alone:
        return ""
    worlds = table.loc[table["world"] != ALL, ["world", "noise"]].drop_duplicates()
    return (
        f" All of this rests on {len(alone)} of {len(worlds)} systems: without "
        f"{' or without '.join(named(*key) for key in alone)} every size is undecided."
    )


def _weight(single: pd.DataFrame, whole: pd.DataFrame, w: str) -> str:
    """What one weight does, system by system and all together."""
    counts = {
        (name, budget): _counted(_of(single, name, f"w = {w}, {budget}"))
        for name in ("bias2", "jacobian")
        for budget in ("equal time", "equal steps")
    }
    together = {name: _by_size(_of(whole, name, f"w = {w}, equal time")) for name in WHAT}
    return (
        f"w = {w} at equal time: the gradient's squared bias is {counts['bias2', 'equal time']}, "
        f"the Jacobian MSE {counts['jacobian', 'equal time']} (at equal steps "
        f"{counts['bias2', 'equal steps']}, and {counts['jacobian', 'equal steps']}); all systems "
        f"together, with/without, bias²: {together['bias2']}; Jacobian MSE: "
        f"{together['jacobian']}."
    )


def _jacobian_alone(single: pd.DataFrame) -> str:
    """Does the gradient gain where the Jacobian does?"""
    cells = ["world", "noise", "rows"]
    gained = _of(single, "jacobian", MAIN).set_index(cells)["answer"] == "better"
    answers = _of(single, "bias2", MAIN).set_index(cells)["answer"][gained]
    found = int((answers == "better").sum())
    return f"Where w = 10 lowers the Jacobian error ({len(answers)} cells), bias² falls in {found}."


def agreement(near: pd.DataFrame) -> dict[str, float]:
    """How often errors fell at equal time, by what `loss_check` had found, over both weights."""
    found: dict[str, float] = {}
    for word, rows in near.groupby("said"):
        found[f"trials where neighbours {word}"] = int((rows["w"] == rows["w"].max()).sum())
        for quantity in ("jacobian", "bias2"):
            found[f"{quantity} lower where neighbours {word}"] = (rows[quantity] < 1).mean()
    return found


def _of(table: pd.DataFrame, quantity: str, pair: str) -> pd.DataFrame:
    return table[(table["quantity"] == quantity) & (table["pair"] == pair)]


def _opening(table: pd.DataFrame, alone: Sequence[tuple[str, float]]) -> str:
    """Who is right, from all systems together at equal time under both weights."""
    where = "on these systems" if not alone else "on these systems taken together"
    timed = table[table["pair"].str.endswith("equal time") & (table["quantity"] == "bias2")]
    count = timed[timed["world"] == ALL]["answer"].value_counts()
    better, rest = count.get("better", 0), count.get("worse", 0) + count.get("alike", 0)
    if rest and not better:
        return f"RP-PGM is right {where}: state prediction suffices."
    if better and not rest:
        return f"DDPPO is right {where}."
    return "Each is right at some size." if better else "No size decides."


def _counted(rows: pd.DataFrame) -> str:
    count = rows["answer"].value_counts()
    parts = [f"{word} in {count[word]}" for word in ANSWERS if word in count]
    return f"{', '.join(parts)} of {count.sum()} cells"


def _by_size(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{row['rows']:,} rows {told(row)} {row['answer']}"
        for _, row in rows.sort_values("rows").iterrows()
    )


def _missing(timed: pd.DataFrame) -> str:
    """How many trials more the undecided cells want."""
    more = timed[timed["answer"] == "undecided"]["more"]
    if more.empty:
        return ""
    return f" Undecided cells would want about {more.median():.0f} trials more in the median."


def named(name: str, noise: float) -> str:
    if name == ALL:
        return "all four"
    return f"{name}, {f'noise {noise:.0%}' if noise else 'no noise'}"
