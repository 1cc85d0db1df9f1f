"""What of a training's gradient is not measured is refused, by the option and with the reason."""

import pytest

from gradlab.errors import InputError
from gradlab.tasks import double_integrator
from gradlab.training.algorithms import find
from gradlab.training.loop import train
from gradlab.training.measured import gradient_errors
from gradlab.training.settings import Settings

REASONS = {
    "svg": "its critic values states",
    "svg-inf": "it has no critic",
    "bptt": "it has no critic",
    "maac": "a soft return",
    "td3": "through no model",
}


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_measurements_of_a_gradient_that_has_none_are_refused_in_one_line(tmp_path, name, reason):
    with pytest.raises(InputError, match=rf"gradient_every is 5, but .* {name} .*{reason}"):
        train(find(name), double_integrator(), tmp_path / "run.h5", gradient_every=5)
    assert not list(tmp_path.iterdir())
    for never in (0, None):
        gradient_errors.check(find(name), Settings(gradient_every=never))
    assert gradient_errors.horizons(find(name)) == ()


def test_the_mixture_of_mpg_is_measured():
    gradient_errors.check(find("mpg-v2"), Settings(gradient_every=5))
    assert 0 in gradient_errors.horizons(find("mpg-v2"))
