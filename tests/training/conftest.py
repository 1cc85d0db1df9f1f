"""Fixtures of the tests of training."""

import pytest

from gradlab.probe.budget import Budget
from gradlab.training.probe import probe
from gradlab.training.probe import signal as probe_signal


@pytest.fixture
def unhurried(monkeypatch):
    """A clock that stands still: everything is free, but for measurements, which are not made."""
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(probe_signal, "PART", 1.0)
    monkeypatch.setattr(probe.SeedMeasurements, "row", lambda self: None)
