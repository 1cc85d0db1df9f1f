"""Runs the notebooks and keeps their outputs: `python -m docs.pages.notebooks`, committed."""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"


def main() -> None:
    """Each in a folder of its own, so that nothing stays of what it writes; what is tagged
    "skip-execution", as an installation, does not run."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(book, resources={"metadata": {"path": folder}}).execute()
        for cell in book.cells:
            cell.metadata.pop("execution", None)  # times, which differ from run to run
        nbformat.write(book, path)


if __name__ == "__main__":
    main()
