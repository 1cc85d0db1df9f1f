"""Every planted fault is named, and nothing beside it."""

import pytest
import torch

from gradlab.tools.audit.compute import audit
from tests.auditing import faulty, public


@pytest.mark.parametrize(("make", "kind", "words"), faulty.FAULTS)
def test_fault_is_the_one_finding_that_is_wrong(make, kind, words):
    torch.manual_seed(1)
    result = audit(**make())
    wrong = [finding for finding in result.findings if finding.severity == "wrong"]
    assert [finding.kind for finding in wrong] == [kind], result
    assert words in wrong[0].sentence
    assert not result.passed


@pytest.mark.parametrize(("source", "make", "kind"), public.FAULTY)
def test_a_fault_of_a_public_thread_is_named(source, make, kind):
    torch.manual_seed(1)
    result = audit(**make())
    assert not result.passed and kind in {finding.kind for finding in result.findings}, source


@pytest.mark.parametrize(("source", "make"), public.SOUND)
def test_published_code_has_no_fault(source, make):
    torch.manual_seed(1)
    result = audit(**make())
    assert result.passed, f"{source}: {result}"


def test_a_loss_that_is_detached_as_a_whole_has_no_weights():
    arguments = faulty.detached_entropy()
    loss = arguments["loss"]
    result = audit(**arguments | {"loss": lambda obs: loss(obs).detach()})
    assert not result.passed and {finding.kind for finding in result.findings} == {"dead actor"}
