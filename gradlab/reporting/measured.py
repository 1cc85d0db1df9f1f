"""What a report reads of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pandas as pd


class Measured(Protocol):
    """A profile, in words and tables. Any key of the mappings may be missing."""

    @property
    def verdict(self) -> tuple[str, ...]: ...
    @property
    def config(self) -> Mapping[str, object]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def truth(self) -> Mapping[str, object]: ...
    @property
    def batch(self) -> int: ...

    def table(self) -> pd.DataFrame: ...
