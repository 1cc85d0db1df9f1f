"""What does it cost to compare a file's checksum, as a share of reading the file?

    python -m benchmarks.checksums [--rounds 9]

Files as commands read them, cached by the system: a measurement (512 starts, 25 steps), a training
run of 20,000 rows, a million recorded transitions. Contestants:
    reading             what a command does to have it, without the checksum: the unit
    seal                what `gradlab.storage.seals` compares: sums of blocks
    CRC-32              of all bytes
    BLAKE2b, SHA-256    the same file through hashlib
    child               reading in a process of its own, as files from elsewhere are
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.side_by_side import seconds
from gradlab import load, measure, tasks
from gradlab.data import trajectories
from gradlab.storage import hdf5, journal, records, seals, untrusted
from gradlab.storage.journal_tables import Column, Table


class Critic(torch.nn.Module):
    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return -(state**2).sum(dim=1) - (action**2).sum(dim=1)


def measured(path: Path) -> None:
    torch.manual_seed(0)
    policy = torch.nn.Linear(2, 1, dtype=torch.float64)
    measure(tasks.double_integrator(), policy, Critic(), starts=512).save(path)


def trained(path: Path) -> None:
    columns = {f"quantity {k}": Column(("seed",), "reward") for k in range(20)}
    table = {"updates": Table("iteration", columns, {"seed": range(5)})}
    rng = np.random.default_rng(0)
    with journal.Journal(path, table, {"kind": "training"}) as writer:
        for k in range(20_000):
            writer.append("updates", {"iteration": k} | {c: rng.normal(size=5) for c in columns})


def recorded(path: Path) -> None:
    rows, number = 1_000_000, torch.arange(1_000_000)
    state = torch.randn(rows + 1, 4, dtype=torch.float64)
    trajectories.Trajectories(
        trajectory=number // 1000,
        step=number % 1000,
        state=state[:-1],
        action=torch.randn(rows, 1, dtype=torch.float64),
        reward=torch.randn(rows, dtype=torch.float64),
        next_state=state[1:],
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=number % 1000 == 999,
    ).save(path)


# What writes a file, and what a command reads it with.
FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "measurement": (measured, load),
    "training run": (trained, journal.read),
    "recorded data": (recorded, trajectories.load),
}


def hashed(path: Path, name: str) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, name).digest()


def whole_crc(path: Path) -> int:
    found, block = 0, memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(block):
            found = zlib.crc32(block[:got], found)
    return found


def contestants(path: Path, read: Callable[[Path], object]) -> dict[str, Callable[[], object]]:
    return {
        "reading": lambda: read(path),
        "seal": lambda: seals.origin(path),
        "CRC-32": lambda: whole_crc(path),
        "BLAKE2b": lambda: hashed(path, "blake2b"),
        "SHA-256": lambda: hashed(path, "sha256"),
        "child": lambda: untrusted.record(path),
    }


def main(rounds: int = 9) -> None:
    checked = records.read
    for name, (write, read) in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.h5"
            write(path)
            records.read = hdf5.read_here
            taken = seconds(contestants(path, read), rounds)
            records.read = checked
            unit, size = taken.pop("reading"), path.stat().st_size / 1e6
            shares = ", ".join(f"{key} {spent / unit:.3f}" for key, spent in taken.items())
            print(f"{name} ({size:.1f} MB, reading {unit * 1e3:.0f} ms): {shares}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
