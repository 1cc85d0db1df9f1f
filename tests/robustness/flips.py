"""Single flipped bits in every kind of file that gradlab writes, read in processes that may die.

refused      InputError or Failure, in one line
noticed      read with a word: a warning, or a count of damaged frames
unchanged    read without a word, and nothing differs
silent       read without a word, as other values
traceback    any other exception
crash, hang  the reader died of a signal, or did not return
"""

from __future__ import annotations

import faulthandler
import io
import os
import select
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from gradlab.errors import Failure, InputError
from gradlab.storage import journal, records, seals
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Array, Record

Kind = tuple[Callable[[Path], None], Callable[[Path], Any]]  # how a file is made, and read
OUTCOMES = ("refused", "noticed", "unchanged", "silent", "traceback", "crash", "hang")
ALLOWED = frozenset(OUTCOMES[:3])
PATIENCE = 60.0  # seconds for one read, a start of torch included
TABLES = {
    "updates": Table(
        "iteration", {"loss": Column(("seed",), "reward²"), "rate": Column()}, {"seed": (0, 1, 2)}
    ),
    "events": Table("number", {"message": Column(text=True)}),
}


def flip_outcomes(kind: str, count: int, seed: int = 0) -> Counter[str]:
    """How often each outcome was met in `count` flips of random bits of one kind of file."""
    found: Counter[str] = Counter()
    while (done := found.total()) < count:
        with tempfile.TemporaryDirectory() as folder:
            (KINDS | FORGED)[kind][0](Path(folder))
            found += _batch(kind, Path(folder), done, count, seed)
    return found


def _batch(kind: str, folder: Path, start: int, count: int, seed: int) -> Counter[str]:
    """Outcomes from flip number `start` on, up to the first that ends the reader, a fork of us."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(kind, folder, start, count, seed, writing)
    os.close(writing)
    found: Counter[str] = Counter()
    try:
        while select.select([reading], [], [], PATIENCE)[0]:
            told = os.read(reading, 1 << 16).decode()
            if not told:
                if start + found.total() < count:
                    found["crash"] += 1
                return found
            found.update(told.split())
        found["hang"] += 1
        return found
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the reader of flipped files is broken itself"


def _child(kind: str, folder: Path, start: int, count: int, seed: int, told: int) -> None:
    """Writes one outcome a line; each flip depends on its number alone. Never returns."""
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        for outcome in _outcomes(kind, folder, range(start, count), seed):
            os.write(told, f"{outcome}\n".encode())
        os.close(told)
        signal.pause()  # until it is killed: nothing of the parent's may be run at exit
    finally:
        os._exit(1)


def _outcomes(kind: str, folder: Path, numbers: range, seed: int) -> Iterator[str]:
    read = (KINDS | FORGED)[kind][1]
    warnings.simplefilter("ignore")
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    whole, truth = [each.read_bytes() for each in files], _plain(read(folder))
    ends = np.cumsum([len(each) for each in whole])
    for number in numbers:
        generator = np.random.default_rng([seed, number])
        at, bit = generator.integers(ends[-1]), int(generator.integers(8))
        which = int(np.searchsorted(ends, at, side="right"))
        spoiled = bytearray(whole[which])
        spoiled[int(at - ends[which])] ^= 1 << bit
        _replace(files[which], spoiled)
        yield _outcome(read, folder, truth)
        _replace(files[which], whole[which])


def _replace(path: Path, content: bytes) -> None:
    """A new file each time, as a copy from elsewhere would be."""
    path.unlink()
    path.write_bytes(content)


def _outcome(read: Callable[[Path], Any], folder: Path, truth: Any) -> str:
    with warnings.catch_warnings(record=True) as words:
        warnings.simplefilter("always")
        try:
            found = read(folder)
        except (InputError, Failure) as error:
            return "refused" if "\n" not in str(error) else "traceback"
        except Exception:
            return "traceback"
    damaged = isinstance(found, Record) and found.attributes.get("damaged_frames")
    if damaged or words:
        return "noticed"
    return "unchanged" if _same(_plain(found), truth) else "silent"


def _plain(value: Any) -> Any:
    """Nested dictionaries with arrays as leaves."""
    if hasattr(value, "state_dict"):
        return _plain({"shape": str(value), **value.state_dict()})
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value.detach().numpy() if hasattr(value, "detach") else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray) and a.dtype.kind != "O":
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return repr(a) == repr(b) if not isinstance(a, np.ndarray) else a.tolist() == b.tolist()


def _rows(folder: Path, count: int) -> journal.Journal:
    writer = journal.Journal(folder / "run.h5", TABLES, {"kind": "training", "seed": 0})
    for k in range(count):
        loss = np.array([k, k + 0.25, -k])
        writer.append("updates", {"iteration": k, "loss": loss, "rate": 1 / (k + 1)})
        writer.append("events", {"number": k, "message": f"über {k}"})
    return writer


def _make_run(folder: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"column {k}": Array(rng.normal(size=(4, 26)), ("name", "h")) for k in range(8)}
    scales = {
        "name": Array(np.array(["data", "model", "mixed", "größer ∂f/∂a"]), ("name",)),
        "h": Array(np.arange(26), ("h",), "step"),
    }
    groups = {f"table {k}": scales | columns for k in range(4)}
    attributes = {"kind": "profile", "command": "gradlab measure …", "config": "{}" * 200}
    records.write(folder / "run.h5", Record(attributes, groups))


def _make_training(folder: Path) -> None:
    _rows(folder, 200).close()


def _make_journal(folder: Path) -> None:
    _rows(folder, 60)._file.close()


def _read_journal(folder: Path) -> Record:
    return journal.read(folder / "run.h5")


def _policy() -> Any:
    import torch

    from gradlab.networks.policies import GaussianPolicy

    torch.manual_seed(0)
    return GaussianPolicy(3, 2, (8,), "silu", (1.0, 0.1, 2.0))


def _make_network(folder: Path) -> None:
    from gradlab.networks import checkpoint

    checkpoint.save(_policy(), folder / "policy.safetensors")


def _read_network(folder: Path) -> Any:
    from gradlab.networks import checkpoint

    return checkpoint.load(folder / "policy.safetensors")


CONFIG = {"task": "pendulum", "seeds": [0, 1], "rate": 3e-4}


def _make_resume(folder: Path) -> None:
    from gradlab.training import checkpoints

    whole = {"sound": lambda run: True, "tensors_of": lambda run: _policy().state_dict()}
    with patch.multiple(checkpoints, **whole):  # a policy's tensors in the place of a run's
        checkpoints.save(folder / "run.h5", SimpleNamespace(iteration=3), CONFIG)  # type: ignore[arg-type]


def _read_resume(folder: Path) -> dict[str, Any]:
    from gradlab.training import checkpoints

    found: dict[str, Any] = {}
    with patch.object(checkpoints, "_put_back", dict.update):
        checkpoints.load(folder / "run.h5", found, CONFIG)  # type: ignore[arg-type]
    return dict(sorted(found.items()))


def _recorded() -> Any:
    import torch

    from gradlab.data.trajectories import Trajectories

    generator = torch.Generator().manual_seed(0)
    state = torch.randn(41, 3, generator=generator, dtype=torch.float64)
    last = torch.arange(40) % 20 == 19
    following = torch.where(last[:, None], state[1:] + 1, state[1:])
    return Trajectories(
        trajectory=torch.arange(40) // 20,
        step=torch.arange(40) % 20,
        state=state[:-1],
        action=torch.randn(40, 2, generator=generator, dtype=torch.float64),
        reward=torch.randn(40, generator=generator, dtype=torch.float64),
        next_state=following,
        terminated=torch.zeros(40, dtype=torch.bool),
        truncated=last,
    )


def _make_data(folder: Path) -> None:
    _recorded().save(folder / "data.h5")


def _read_data(folder: Path) -> Any:
    from gradlab.data import record_files

    return record_files.read(folder / "data.h5")


def _read_forged(folder: Path) -> Record:
    """The flipped content under a seal that holds, as a forger would put it there."""
    path = folder / "run.h5"
    content = path.read_bytes()[: -seals.SIZE]
    check = seals.check(io.BytesIO(content), len(content))
    told = seals.SEALED.pack(seals.MAGIC, check, len(content))
    path.write_bytes(content + told + bytes(seals.MARK))
    return records.read(path)


# A file of a new kind is a row here.
KINDS: dict[str, Kind] = {
    "run": (_make_run, lambda folder: records.read(folder / "run.h5")),
    "training run": (_make_training, _read_journal),
    "journal": (_make_journal, _read_journal),
    "recorded data": (_make_data, _read_data),
    "network": (_make_network, _read_network),
    "saved training": (_make_resume, _read_resume),
}


# What a forged file says is what it says: it may be read as anything, and crash nobody.
FORGED: dict[str, Kind] = {"forged run": (_make_run, _read_forged)}
