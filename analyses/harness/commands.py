"""The commands of a study."""

from __future__ import annotations

import os
from collections.abc import Callable

import tyro


def commands(**named: Callable[..., None]) -> None:
    """Run the one that the first word names; libraries of linear algebra keep to one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.extras.subcommand_cli_from_dict(named)
