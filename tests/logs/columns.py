"""Columns of a small record."""

from pathlib import Path

import numpy as np

from gradlab.tools.logs.arguments import COLUMNS
from tests.logs.carts import recorded


def arrays(path: Path, **changed: np.ndarray) -> Path:
    data = recorded(60, 12)
    columns = {name: getattr(data, name).numpy() for name in COLUMNS if name != "episode"}
    np.savez(path, **columns | {"episode": data.trajectory.numpy()} | changed)
    return path
