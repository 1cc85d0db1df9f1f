"""Of losses drawn from parts, sound ones have no fault and planted ones are named."""

import pytest
import torch

from gradlab.tools.audit.compute import audit
from tests.auditing.drawn import KINDS, Fault, draw, made

FAULTS: tuple[Fault, ...] = ("none", "sample", "normal", "round", "detach", "data", "no_grad")


def _mistakes(fault, seeds):
    """Seeds of which the verdict is wrong."""
    mistaken = []
    for seed in seeds:
        torch.manual_seed(seed)
        result = audit(**made(draw(seed, fault)), directions=0)
        wrong = [finding.kind for finding in result.findings if finding.severity == "wrong"]
        # Where the planted fault takes all of the gradient, that is the finding.
        allowed = [[]] if fault == "none" else [[KINDS[fault]], ["dead actor"]]
        if wrong not in allowed:
            mistaken.append(seed)
    return mistaken


@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts(fault):
    assert _mistakes(fault, range(6)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts_in_many(fault):
    assert _mistakes(fault, range(6, 206)) == []
