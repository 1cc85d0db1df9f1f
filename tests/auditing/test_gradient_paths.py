"""Gradients by path are those of the parts of the loss; closed gates are exact."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradlab.tools.audit.compute import audit
from gradlab.tools.audit.evaluation import audited, by_path, evaluated
from tests.auditing import sound
from tests.auditing.networks import Deterministic, Dynamics, Q, Value, states

Part = Callable[[Tensor], Tensor]


def _apart(part, actor):
    """Plain autograd of one part of the loss; zeros where it has no path."""
    parameters = list(actor.parameters())
    gradients = torch.autograd.grad(part(states().double()), parameters, allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]


def _known():
    """A loss of four parts, one for each path."""
    actor, model, critic, value = Deterministic(), Dynamics(), Q(), Value()
    for module in (actor, model, critic, value):
        module.double()

    def through_both(s):
        return value(model.predict(s, actor(s))[0]).mean()

    parts: dict[str, Part] = {
        "model": lambda s: model.predict(s, actor(s))[1].pow(2).mean(),
        "critic": lambda s: critic(s, actor(s)).sin().mean(),
        "model and critic": through_both,
        "neither": lambda s: 0.1 * actor(s).pow(2).mean(),
    }
    return actor, model, critic, value, parts


def test_gradient_by_path_is_that_of_the_part_with_that_path():
    torch.manual_seed(0)
    actor, model, critic, value, parts = _known()
    given = audited(
        lambda s: sum(part(s) for part in parts.values()), actor, [critic, value], model,
        states().double(), None, None, 0,
    )  # fmt: skip
    evaluation = evaluated(given)
    paths = by_path(evaluation.loss, evaluation.theta, evaluation.calls)
    for path, part in parts.items():
        for got, expected in zip(paths[path], _apart(part, actor), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("missing", ["model", "critic", "model and critic", "neither"])
def test_path_that_the_loss_has_not_is_exactly_zero(missing):
    torch.manual_seed(0)
    actor, model, critic, value, parts = _known()
    rest = [part for path, part in parts.items() if path != missing]
    result = audit(
        lambda s: sum(part(s) for part in rest), actor, [critic, value], model,
        inputs=states().double(),
    )  # fmt: skip
    assert all(norm == 0 for norm in result.norms["loss"].get(missing, [0]))
    table = result.table()
    assert (table[table.path != missing].groupby("path").norm.sum() > 0).all()


@pytest.mark.parametrize("make", sound.SOUND, ids=lambda make: make.__name__)
def test_paths_sum_to_the_gradient_of_the_loss(make):
    torch.manual_seed(1)
    arguments = make()
    inputs = arguments.pop("inputs", ())
    given = audited(
        arguments["loss"], arguments["actor"], arguments.get("critic"), arguments.get("model"),
        inputs, None, None, 0,
    )  # fmt: skip
    evaluation = evaluated(given)
    paths = by_path(evaluation.loss, evaluation.theta, evaluation.calls)
    torch.manual_seed(0)
    value = given.loss(*given.inputs)
    torch.testing.assert_close(evaluation.loss.to(value), value)
    expected = torch.autograd.grad(value, evaluation.theta, allow_unused=True)
    for k, g in enumerate(expected):
        total = torch.stack([values[k] for values in paths.values()]).sum(0)
        torch.testing.assert_close(total, torch.zeros_like(total) if g is None else g)
