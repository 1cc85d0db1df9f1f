"""What this machine has, or what a container grants of it."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def memory() -> float:
    """Bytes of memory; 0 on Windows, which does not say."""
    if not hasattr(os, "sysconf"):
        return 0.0
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    granted = LIMIT.read_text().strip() if LIMIT.is_file() else "max"
    return float(min(machine, int(granted)) if granted.isdigit() else machine)
