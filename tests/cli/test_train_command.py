"""What the command line makes of a learned model and its remedies."""

from dataclasses import replace

import pytest

from gradlab.cli.train import Train
from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import MultiStep, OneStepError
from gradlab.reporting import training_page
from gradlab.runs.training.results import load
from gradlab.training.algorithms import find


def row(**options):
    return Train("mpg-v2", "double_integrator", **options)._row("double_integrator")


def test_a_prior_is_used_unless_a_model_is_asked_for():
    plain = row()
    assert plain.model is None and plain.policy_spectral is None


def test_an_algorithm_that_learns_its_model_does_so_unless_the_prior_is_asked_for():
    def model(name, **options):
        return Train(name, "double_integrator", **options)._row("double_integrator").model

    assert model("maac") == find("maac").model
    assert model("maac-no-steve", model="prior") is None
    assert model("maac", members=3) == replace(find("maac").model, members=3)
    assert model("maac", loss="dd").loss.name == "dd"
    assert model("mbpo", members=3) == replace(find("mbpo").model, members=3, elites=None)
    for options in ({"model": "prior"}, {"members": 1}):
        with pytest.raises(InputError, match=r"maac has targets .* learn one of 2 members"):
            model("maac", **options)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [("nll", OneStepError), ("dd", DirectionalDerivative), ("multistep", MultiStep)],
)
def test_every_loss_has_its_name(loss, kind):
    model = row(model="learned", loss=loss).model
    assert isinstance(model.loss, kind) and model.loss.name == loss
    assert not model.two_models and model.spectral is None


def test_two_models_are_likelihood_and_directional_loss():
    model = row(model="learned", two_model=True).model
    assert {role: loss.name for role, loss in model.roles.items()} == {
        "prediction": "nll",
        "gradient": "dd",
    }
    ablation = row(model="learned", two_model=True, loss="nll").model
    assert [loss.name for loss in ablation.roles.values()] == ["nll", "nll"]


def test_spectral_names_whose_layers():
    held = row(
        model="learned", spectral="model,policy", members=3, fit_every=10, fit_steps=7,
        model_hidden=(20, 10),
    )  # fmt: skip
    assert held.model.spectral == "all_but_last" and held.policy_spectral == "all"
    assert held.critic_spectral is None
    assert (held.model.members, held.model.every, held.model.steps) == (3, 10, 7)
    assert held.model.hidden == (20, 10)
    assert row(spectral="critic").critic_spectral == "all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "dd"}, "--loss is for a learned model: add --model learned"),
        ({"two_model": True}, "--two-model is for a learned model"),
        ({"spectral": "model"}, "--spectral model is for a learned model"),
        ({"members": 3, "model": "prior"}, "--members is for a learned model"),
        ({"spectral": "policies"}, "--spectral names 'policies', expected model, policy or critic"),
        ({"model_hidden": (200,)}, "--model-hidden is for a learned model"),
        ({"model": "learned", "members": 0}, "model has members 0"),
        ({"model": "learned", "model_hidden": (64, 0)}, "model has hidden"),
    ],
)
def test_options_that_do_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        row(**options)


@pytest.mark.slow
def test_a_whole_run_on_a_learned_model_from_the_command_line(tmp_path):
    command = Train(
        "mpg-v2", "double_integrator", model="learned", spectral="policy", members=1,
        horizons=(0, 2), iterations=2, gradient_starts=4, no_report=True,
        output=tmp_path / "run.h5",
    )  # fmt: skip
    document = command.run("gradlab train mpg-v2 double_integrator --model learned")
    about = {sentence["about"] for sentence in document["verdict"]}
    assert {"return", "gradient", "model"} <= about
    drawn = {panel.name for panel in training_page.panels({"run": load(tmp_path / "run.h5")})}
    assert {"gradient-parts", "gradient-dynamics_parts", "model-prediction"} <= drawn
