"""Bad input of an audit is refused in one line that names it."""

from typing import Any

import pytest
import torch
from torch import nn

from gradlab.errors import InputError
from gradlab.tools.audit.compute import audit
from tests.auditing.networks import Deterministic, Environment, Q, states

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    (dict(loss=3), "loss is 3, expected a function"),
    (dict(loss=lambda s: s), "expected a scalar of floats"),
    (dict(loss=lambda s: 1.0), "loss returns a float, expected a scalar tensor"),
    (dict(loss=lambda s: {}), "loss returns no term"),
    (dict(loss=lambda s: {"Q": 2}), "loss returns for 'Q' a int"),
    (dict(loss=lambda: 0), "loss failed (TypeError"),
    (dict(actor=None), "actor is None"),
    (dict(actor=torch.tanh), "actor is a function: put it into a torch.nn.Module"),
    (dict(actor=Environment()), "expected a torch.nn.Module"),
    (dict(actor=nn.Tanh()), "actor has no parameter that requires a gradient"),
    (dict(actor=[]), "actor is empty"),
    (dict(critic=lambda s, a: s), "critic is a function"),
    (dict(critic=[Q(), "q2"]), "critic 2 is 'q2'"),
    (dict(model=3.0), "model is 3.0"),
    (dict(optimizer="Adam"), "optimizer is 'Adam', expected the actor's torch.optim.Optimizer"),
    (dict(lengths=8), "lengths is 8, expected two of a segment"),
    (dict(lengths=(8, 9)), "expected a second of at least 1.5 times"),
    (dict(lengths=(8, 16)), "unexpected keyword argument 'length'"),
    (dict(seed=-1), "seed is -1"),
)


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_bad_input_is_refused_in_one_line(change, words):
    actor = Deterministic()
    good = dict(loss=lambda s: actor(s).sum(), actor=actor, inputs=states())
    with pytest.raises(InputError) as caught:
        audit(**{**good, **change})
    assert words in str(caught.value) and "\n" not in str(caught.value)
