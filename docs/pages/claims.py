"""The table of all claims, from reports/claims.csv; a few lines of script make it filterable."""

from pathlib import Path

from docs.pages.tables import REPORTS, rows_of

HEAD = """# Claims of the papers

A verdict is about the paper's sentence, as it is printed. *holds*: all of it is shown by whole 95%
intervals, and every size that we ask for. *direction shown, size not*: a size of ours is not shown.
*refuted*: a bound is violated, or the opposite direction is shown, in one world at least.
*undecided*: an interval holds the threshold. *not tried*: not run here, or its premise did not
occur. Equal data is the papers' condition, *equal time* ours. [More on every
claim](../../reports/README.md), with what was changed after looking; *raw* says from what a reader
recomputes a verdict: single rows or run files in this tree (*here*) or at commit 57789d45, else the
command again. The table is `reports/claims.csv`, made by `python -m analyses.claims`.

"""
TITLES = ("claim", "paper", "outcome", "decided by", "equal time", "scale", "raw")
OUTCOMES = ("holds", "direction shown, size not", "refuted", "undecided", "not tried")


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
    """Of one claim: what decided it first, without what else was undecided."""
    report = Path(row["file"]).parent / "README.md"
    name = f"**{row['id']}**"
    if row["file"] and (REPORTS / report).exists():
        name = f"[{row['id']}](../../reports/{report})"
    decided = row["decided by"].split(";")[0].replace("|", "\\|").replace("*", "\\*")
    claim = f"{name}: {row['claim']}".replace("|", "\\|")
    return claim, row["paper"], row["outcome"], decided, row["equal time"], row["scale"], row["raw"]
