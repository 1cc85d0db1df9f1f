"""The table of all claims, from reports/claims.csv; a few lines of script make it filterable."""

from pathlib import Path

from docs.pages.tables import REPORTS, rows_of

HEAD = """# Claims of the papers

*Holds*: every part of the criterion is met by its whole 95% interval. *Refuted*: a part is missed
by its whole interval; most criteria ask for every world, size or horizon, and one that fails
refutes them. *Undecided*: no part is missed and some intervals hold the threshold. *Not tried*: not
run here, or its premise did not occur. [More on every claim](../../reports/README.md), with what
was changed after looking; the table is `reports/claims.csv`, made by `python -m analyses.claims`.

"""
TITLES = ("claim", "paper", "outcome", "decided by", "scale")


def write(folder: Path) -> None:
    """Writes claims.md."""
    rows = rows_of("claims.csv")
    counts = {
        word: sum(row["outcome"] == word for row in rows)
        for word in ("holds", "refuted", "undecided", "not tried")
    }
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
    return claim, row["paper"], row["outcome"], decided, row["scale"]
