"""Certificates of engines, run small: made twice they are the same, and the table has them."""

from pathlib import Path

import pytest

from analyses.certificates import engines as certificates


def made(folder: Path) -> dict[str, bytes]:
    certificates.certify("gradlab-path-tracking", samples=32, output=folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_the_same_states_certified_twice_give_the_same_page(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    assert set(first) == {"pages.json", "gradlab-path-tracking.html"}
    assert first == second


def test_the_table_has_versions_and_verdict_and_keeps_what_is_around_it(tmp_path: Path) -> None:
    made(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{certificates.BEGIN}\nold\n{certificates.END}\nafter\n")
    for _ in range(2):
        certificates.table(tmp_path)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| [path_tracking]")]
    assert "torch 2." in row and row.endswith("| sound |")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SystemExit, match="no engine's scene is called 'no engine'"):
        certificates.certify("no engine")
