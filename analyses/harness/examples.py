"""Files of `examples/` as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        name, Path(__file__).parents[2] / f"examples/{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
