"""What `gradlab list` knows by name, as tables: tasks, estimators, algorithms, losses, remedies."""

from pathlib import Path

from gradlab.cli.program import List

HEAD = """# Names

Tasks, estimators, algorithms, losses and remedies that the command line and Python know by name;
the same as `gradlab list`.
"""


def write(folder: Path) -> None:
    """Writes names.md."""
    document = List().run("gradlab list")
    sections = [
        f"## {_heading(title)}\n\n{_table(rows)}\n"
        for title, rows in document.items()
        if isinstance(rows, dict) and title != "by default"
    ]
    (folder / "names.md").write_text("\n".join([HEAD, *sections]))


def _heading(title: str) -> str:
    return f"`gradlab {title}`" if "--" in title else title.capitalize()


def _table(rows: dict[str, object]) -> str:
    """A row for each name: its line, or a column for each of its properties."""
    first = next(iter(rows.values()))
    titles = list(first) if isinstance(first, dict) else [""]
    lines = [["name", *titles], ["---"] * (1 + len(titles))]
    for name, row in rows.items():
        cells = row.values() if isinstance(row, dict) else [row]
        lines.append([f"`{name}`", *(str(cell).replace("|", "\\|") for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
