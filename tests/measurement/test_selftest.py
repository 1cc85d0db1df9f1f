"""The self-test passes here, and fails where the numerics are broken."""

import json

import pytest

from gradlab import cli
from gradlab.gradients import sweeps, weighted_terms
from gradlab.measurement import selftest
from gradlab.measurement.selftest import Check


def test_every_check_passes_and_every_trap_is_told_apart():
    checks = selftest.selftest()
    assert [check.name for check in checks if not check.passed] == []
    assert sum(check.mistake is not None for check in checks) == 5


@pytest.mark.parametrize("wrong", [-1.0, 0.5])
def test_a_known_number_outside_of_the_interval_fails(wrong):
    assert Check("", 0.2, 0.2, 0.0, 0.4).passed
    assert not Check("", wrong, 0.2, 0.0, 0.4).passed
    assert not Check("", 0.2, 0.2, 0.0, 0.4, mistake=0.3).passed


def test_a_broken_sweep_is_found(monkeypatch, capsys):
    right = sweeps.action_gradients
    monkeypatch.setattr(weighted_terms, "action_gradients", lambda *a: 1.01 * right(*a))
    monkeypatch.setattr(selftest, "PARTS", (selftest.identities,))
    assert cli.main(["selftest", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["passed"]
