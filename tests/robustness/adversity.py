"""Torn journals, full and read-only disks, two writers, a clock that is set back.

kept     every acknowledged row is there, as it was written
refused  an error in one line, and nothing lost
lost     an acknowledged row is missing or another
traceback, hang
denied   the place cannot be made here: a file system of its own needs the right to mount
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np

from gradlab.errors import Failure, InputError
from gradlab.storage import journal, records
from gradlab.storage.journal import Journal, journal_of, read
from gradlab.storage.journal_tables import Column, Table

ALLOWED = frozenset({"kept", "refused", "denied"})
TABLES = {"updates": Table("iteration", {"loss": Column(("seed",))}, {"seed": (0, 1, 2)})}


def row(k: int) -> dict[str, object]:
    return {"iteration": k, "loss": np.array([k, k + 0.25, -k])}


def there(path: Path, count: int) -> str:
    """Are the rows 0 … count − 1 there? More may be."""
    try:
        table = read(path).groups["updates"]
    except (InputError, KeyError):
        return "lost" if count else "kept"
    k = np.arange(count)
    same = table["iteration"].values[:count].tolist() == k.tolist() and np.array_equal(
        table["loss"].values[:count], np.stack([k, k + 0.25, -k], 1)
    )
    return "kept" if same else "lost"


def torn_journals(count: int, seed: int = 0) -> Counter[str]:
    """A journal cut at a random byte, or with random bytes behind: rows before the cut are there,
    and the next writer goes on."""
    found: Counter[str] = Counter()
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path, ends = Path(folder) / "run.h5", []
        writer = Journal(path, TABLES, {"kind": "training"})
        for k in range(40):
            writer.append("updates", row(k))
            ends.append(os.fstat(writer._file.fileno()).st_size)
        writer._file.close()
        whole = journal_of(path).read_bytes()
        for _ in range(count):
            cut = int(generator.integers(1, len(whole) + 1))
            rubbish = generator.bytes(int(generator.integers(0, 60)))
            path.unlink(missing_ok=True)
            journal_of(path).write_bytes(whole[:cut] + rubbish)
            rows = sum(end <= cut for end in ends)
            found[_continued(path, rows)] += 1
            journal_of(path).unlink(missing_ok=True)
    return found


def _continued(path: Path, rows: int) -> str:
    before = there(path, rows)
    try:
        with Journal(path, TABLES, {"kind": "training"}) as writer:
            for k in range(rows, rows + 3):
                writer.append("updates", row(k))
    except (InputError, Failure) as error:
        return "refused" if "\n" not in str(error) else "traceback"
    except Exception:
        return "traceback"
    return before if before != "kept" else there(path, rows + 3)


@contextlib.contextmanager
def disk(size: str) -> Iterator[Path | None]:
    """A small file system of its own; None where that is not allowed."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
        try:
            allowed = subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            allowed = False
        try:
            yield Path(folder) if allowed else None
        finally:
            if allowed:
                subprocess.run(["umount", "-l", folder], check=True)


def full_disks(count: int, seed: int = 0) -> Counter[str]:
    """Rows until the disk is full; then there is room again, and the writer goes on."""
    found: Counter[str] = Counter()
    generator = np.random.default_rng(seed)
    for _ in range(count):
        with disk(f"{int(generator.integers(100, 600))}k") as folder:
            found["denied" if folder is None else _filled(folder, generator)] += 1
    return found


def _filled(folder: Path, generator: np.random.Generator) -> str:
    path, ballast, rows = folder / "run.h5", folder / "ballast", 0
    ballast.write_bytes(bytes(int(generator.integers(1, 60_000))))
    try:
        with (
            mock.patch.object(journal, "SYNC", 0.0),
            Journal(path, TABLES, {"kind": "training"}) as writer,
        ):
            refused = 0
            while refused < 3 and rows < 20_000:
                try:
                    writer.append("updates", row(rows))
                    rows += 1
                except Failure:
                    refused += 1
            ballast.unlink()
            for _ in range(5):
                with contextlib.suppress(Failure):
                    writer.append("updates", row(rows))
                    rows += 1
    except (InputError, Failure) as error:
        return there(path, rows) if "\n" not in str(error) else "traceback"
    except Exception:
        return "traceback"
    return there(path, rows)


def full_saves(count: int, seed: int = 0) -> Counter[str]:
    """A finished record that does not fit: an error in one line, and the file before it stays."""
    found: Counter[str] = Counter()
    generator = np.random.default_rng(seed)
    for _ in range(count):
        with disk("120k") as folder:
            found["denied" if folder is None else _saved(folder, generator)] += 1
    return found


def _saved(folder: Path, generator: np.random.Generator) -> str:
    path = folder / "run.h5"
    small = {"t": {"x": records.Array(np.arange(4.0), ("x",))}}
    large = {"t": {"x": records.Array(generator.normal(size=60_000), ("x",))}}
    records.write(path, records.Record({"kind": "profile"}, small))
    before = path.read_bytes()
    try:
        records.write(path, records.Record({"kind": "profile"}, large), overwrite=True)
    except (InputError, Failure) as error:
        names = [each.name for each in folder.iterdir()]
        whole = path.read_bytes() == before and names == [path.name]
        return "refused" if whole and "\n" not in str(error) else "lost"
    except Exception:
        return "traceback"
    return "lost"


def read_only(count: int, seed: int = 0) -> Counter[str]:
    """A run on a disk that cannot be written: it is read as before, and writing is refused."""
    found: Counter[str] = Counter()
    for _ in range(count):
        with disk("2m") as folder:
            found["denied" if folder is None else _frozen(folder)] += 1
    return found


def _frozen(folder: Path) -> str:
    path = folder / "run.h5"
    writer = Journal(path, TABLES, {"kind": "training"})
    for k in range(20):
        writer.append("updates", row(k))
    writer._file.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    before = there(path, 20)
    try:
        Journal(path, TABLES, {"kind": "training"})
    except (InputError, Failure) as error:
        return before if "\n" not in str(error) else "traceback"
    except Exception:
        return "traceback"
    return "lost"


WRITER = """
import sys
from gradlab.errors import InputError
from tests.robustness.adversity import TABLES, Journal, Path, row
try:
    with Journal(Path(sys.argv[1]), TABLES, {"kind": "training"}) as writer:
        print("open", flush=True)
        sys.stdin.readline()
        for k in range(50):
            writer.append("updates", row(k))
    print("wrote")
except InputError as error:
    print("refused" if "\\n" not in str(error) else "traceback")
"""


def two_writers(count: int, seed: int = 0) -> Counter[str]:
    """Several processes open one run, one of them by another name: one writes, the rest refuse."""
    found: Counter[str] = Counter()
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path, other = Path(folder) / "run.h5", Path(folder) / "link.h5"
            path.write_bytes(b"")
            path.unlink()
            other.symlink_to(path)
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(each)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for each in (path, other, path)
            ]  # fmt: skip
            first = [each.stdout.readline().strip() for each in writers]  # all have tried by then
            rest = [each.communicate("go\n", timeout=120)[0].strip() for each in writers]
            said = [b if a == "open" else a for a, b in zip(first, rest, strict=True)]
            alone = sorted(said) == ["refused", "refused", "wrote"]
            found[there(path, 50) if alone else "lost"] += 1
    return found


def clocks_set_back(count: int, seed: int = 0) -> Counter[str]:
    """The clock of the machine jumps by days while a run is written and read."""
    found: Counter[str] = Counter()
    generator = np.random.default_rng(seed)
    jumps: list[float] = [0.0]

    def now() -> float:
        return time.monotonic() + 1e9 + jumps[0]

    with tempfile.TemporaryDirectory() as folder, mock.patch("time.time", now):
        path = Path(folder) / "run.h5"
        with Journal(path, TABLES, {"kind": "training"}) as writer:
            for k in range(count):
                jumps[0] = float(generator.normal() * 1e6)
                writer.append("updates", row(k))
                moment = now()
                os.utime(journal_of(path), (moment, moment))
                found[there(path, k + 1)] += 1
    return found


# What can happen to a run is a row here.
ADVERSITIES: Mapping[str, tuple[Callable[[int, int], Counter[str]], int]] = {
    "torn journals": (torn_journals, 300),
    "a disk that fills": (full_disks, 20),
    "a disk full at saving": (full_saves, 10),
    "a read-only disk": (read_only, 5),
    "three writers of one run": (two_writers, 10),
    "a clock set back": (clocks_set_back, 100),
}
