"""Two hundred systems without a mistake, shown by direct means."""

import pytest
import torch

from tests.certification.directly import by_linearize, largest_errors, visited
from tests.certification.sound_systems import (
    computed_in_single_precision,
    in_single_precision,
    sound_tasks,
)

SOUND = dict(sound_tasks())
DOUBLE = [name for name in SOUND if "float32" not in name]
SINGLE = dict(computed_in_single_precision())


def test_there_are_two_hundred():
    assert len(SOUND) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBLE)
def test_derivative_is_that_of_the_step(name):
    task = SOUND[name]
    errors = largest_errors(task.simulator, *visited(task))
    assert max(errors.values()) < 2e-3, errors


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_derivative_in_single_precision_is_that_in_double(name):
    task = SINGLE[name]
    inputs = [x.float().double() for x in visited(task)]
    exact = by_linearize(task.simulator, *inputs)
    rounded = by_linearize(in_single_precision(task).simulator, *inputs)
    for block, wanted in exact.items():
        size = wanted.flatten(1).abs().amax(1).clamp(min=1e-3)
        error = (rounded[block] - wanted).flatten(1).abs().amax(1) / size
        # The two precisions may take different sides of a kink inside the step.
        assert torch.quantile(error, 0.98) < 1e-3, block
