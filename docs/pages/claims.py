"""The table of all claims, from reports/claims.csv; a few lines of script make it filterable."""

import re
from pathlib import Path

from docs.pages.tables import REPORTS, rows_of

HEAD = """# Claims of the papers

A verdict is about the paper's sentence as printed.

- *holds*: whole 95% intervals show all of it, at every size that we ask for.
- *direction shown, size not*: a size that we ask for is not shown.
- *refuted*: in at least one world a bound is violated, or the opposite direction is shown.
- *undecided*: an interval contains the threshold.
- *not tried*: not run here, or its premise did not occur.

Equal data is the papers' condition, *equal time* ours. A picture shows the 95% interval of the
number that decided, and in grey where it should be. *raw* says what a verdict is recomputed
from: single rows or run files in this tree (*here*) or at commit 57789d45, else the command.
[More on every claim](../../reports/README.md), with what was changed after looking; the table
is `reports/claims.csv`, made by `python -m analyses.claims`.

"""
TITLES = ("claim", "paper", "outcome", "decided by", "equal time", "scale and raw")
OUTCOMES = {
    "holds": "●", "direction shown, size not": "◐", "refuted": "✕", "undecided": "○",
    "not tried": "–",
}  # fmt: skip
_NUMBER = r"([-+.,e\d]+)"
_DECIDED = re.compile(rf"{_NUMBER} \[{_NUMBER}, {_NUMBER}\] \(asked: ([≤≥]) {_NUMBER}\)")


def write(folder: Path) -> None:
    """Writes claims.md."""
    rows = rows_of("claims.csv")
    counts = {word: sum(row["outcome"] == word for row in rows) for word in OUTCOMES}
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    lines = [TITLES, ("---",) * len(TITLES), *map(cells, rows)]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    table = f"**{len(rows)} claims: {summary}.**\n\n:::{{container}} claims\n\n{body}\n:::\n"
    (folder / "claims.md").write_text(HEAD + table)


def cells(row: dict[str, str]) -> tuple[str, ...]:
    """Of one claim: what decided it and which size of ours is not shown, not what else is open."""
    report = Path(row["file"]).parent / "README.md"
    name = f"**{row['id']}**"
    if row["file"] and (REPORTS / report).exists():
        name = f"[{row['id']}](../../reports/{report})"
    first, *more = row["decided by"].split("; ")
    decided = "; ".join([first, *(each for each in more if each.startswith("our size"))])
    decided = decided.replace("|", "\\|").replace("*", "\\*")
    claim = f"{name}: {row['claim']}".replace("|", "\\|")
    outcome = row["outcome"]
    word = f'<span class="outcome {outcome.split()[0]}">{OUTCOMES[outcome]} {outcome}</span>'
    scale = f"{row['scale']}; *raw:* {row['raw']}"
    said = re.sub(r"(?<=[ \[])-(?=\d)", "−", decided)
    return claim, row["paper"], word + picture(decided), said, row["equal time"], scale


def picture(decided: str) -> str:
    """The interval that decided beside its threshold, as SVG; "" where there is none."""
    found = _DECIDED.search(decided)
    if not found:
        return ""
    *numbers, side, asked = found.groups()
    value, low, high, threshold = (float(each.replace(",", "")) for each in (*numbers, asked))
    ends = min(low, threshold), max(high, threshold)
    width = 1.3 * (ends[1] - ends[0]) or 1.0
    v, lo, hi, t = (60 + 120 * (x - sum(ends) / 2) / width for x in (value, low, high, threshold))
    band = (0.0, t) if side == "≤" else (t, 120 - t)
    return (
        f'<svg class="interval" viewBox="0 0 120 16" role="img" aria-label="{found.group()}">'
        f'<rect x="{band[0]:.1f}" width="{band[1]:.1f}" height="16"/>'
        f'<path d="M{lo:.1f} 8H{hi:.1f}M{lo:.1f} 4v8M{hi:.1f} 4v8"/>'
        f'<circle cx="{v:.1f}" cy="8" r="3"/></svg>'
    )
