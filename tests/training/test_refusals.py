"""Rows, parts and runs that make no sense are refused by name, before anything is written."""

import math
from dataclasses import replace

import pytest
from torch import nn

from gradlab.errors import InputError
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.tasks import double_integrator
from gradlab.training.algorithms import (
    find,
    measured,
    with_horizons,
    with_starts,
    with_temperature,
    with_weights,
)
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.measured.steering import steered
from gradlab.training.models.branches import Branching
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.adaptive_horizon import Stiffness
from gradlab.training.parts.context import FixedWeights, Passes
from gradlab.training.parts.lambda_targets import StateLambda
from gradlab.training.parts.mage import ActionGradient
from gradlab.training.parts.policy_losses import FromStarts, MixtureLoss, Term
from gradlab.training.parts.sources import Branched, Newest, Replayed, TwoStores
from gradlab.training.parts.targets import Copied, OneStep, Steve
from gradlab.training.parts.temperature import Automatic
from gradlab.training.planning import Planning
from gradlab.training.settings import Settings
from tests.training.small_runs import MODEL, SMALL, row, task

SHAC, MISFIT = find("shac").target, "take windows of as many steps"

ROWS = [
    ("bptt", {"terms": (Term(0),)}, "has no critic: take horizons from 1"),
    ("bptt", {"critic_spectral": "all"}, "no spectral norm of critics"),
    ("bptt", {"policy": "gaussian"}, "but a target for deterministic ones"),
    ("bptt", {"critic_loss": ActionGradient(OneStep())}, "differentiates critics by actions"),
    ("svg", {"critic_loss": ActionGradient(OneStep())}, "differentiates critics by actions"),
    ("svg", {"policy": "deterministic", "target": OneStep()}, "take a gaussian policy"),
    ("svg", {"loss": find("sac").loss, "terms": find("sac").terms}, "critic is V.s., in which"),
    ("svg", {"target": SHAC}, r"a target along paths: take source=Newest.steps"),
    ("maac", {"policy": "deterministic"}, "which has no entropy, but a target for stochastic"),
    ("maac", {"target": OneStep(twin=True)}, "but a target for deterministic ones"),
    ("maac", {"terms": (Term(3),)}, "first action alone at horizons"),
    ("svg-inf", {"reuse": 2}, "has reuse 2, but an on-policy batch is new"),
    ("svg-inf", {"source": Newest(5)}, MISFIT),
    ("svg-inf", {"source": find("sac").source}, MISFIT),
    ("svg-inf", {"policy": "deterministic"}, "which has no entropy, but a target for stochastic"),
    ("shac", {"source": Replayed()}, MISFIT),
    ("shac", {"terms": (Term(5, "all"),)}, MISFIT),
    ("shac", {"model": LearnedModel()}, "shac uses no model"),
    ("shac", {"reuse": 2}, "an on-policy batch is new"),
    ("shac", {"policy": "deterministic", "target": replace(SHAC, stochastic=False)},
     r"has exploration 0\.1, but follows its own actions"),
    ("apg", {"fit": find("shac").fit}, "apg has no critic to be fitted in 16 passes"),
    ("dmo", {"adaptive": Stiffness()}, "differentiates no simulator"),
    ("rp-dr", {"source": Newest(10)}, MISFIT + ", or of a multiple"),
    ("td3", {"model": MODEL}, "td3 uses no model"),
    ("ddppo", {"updates": 0}, "ddppo has updates 0, expected an integer from 1"),
    ("mpg-v2", {"terms": (Term(0), Term(0))}, "different horizons"),
    *(("steve", {"model": model}, r"steve has targets \(STEVE, .* learn one of 2 members")
      for model in (None, LearnedModel(members=1), LearnedModel(members=3, elites=1))),
    *(("mpg-v2", {"policy_rate": rate}, "expected two positive numbers, first and last")
      for rate in (1e-3, (1e-3,), (1e-3, 0.0), (math.nan, 1e-3))),
]  # fmt: skip
PARTS = [
    (Asynchronous, {"learners": 0}, "learners is 0, expected an integer from 1"),
    (Asynchronous, {"actors": -1}, "actors is -1, expected an integer from 1"),
    (Asynchronous, {"buffers": 1.5}, "buffers is 1.5, expected an integer from 1"),
    (Asynchronous, {"queue": -1}, "queue is -1, expected an integer from 0"),
    (Stiffness, {"threshold": 0.0}, "threshold 0.0, expected a positive number"),
    (Stiffness, {"rate": -1.0}, "rate -1.0, expected a positive number"),
    (Stiffness, {"shortest": 0}, "shortest 0, expected an integer from 1"),
    (StateLambda, {"trace": 1.5}, "trace is 1.5, expected a number from 0 to 1"),
    (StateLambda, {"critics": 3}, "critics is 3, expected 1 or 2"),
    (Passes, {"epochs": 0}, "epochs is 0"),
    (FromStarts, {"share": 1.1}, r"share is 1\.1"),
    (MixtureLoss, {"samples": 0}, "samples is 0"),
    (Steve, {"horizon": 0}, "STEVE has horizon 0, expected an integer from 1"),
    (Copied, {"every": 0}, "every is 0, expected an integer from 1"),
    (Newest, {"steps": 0}, "steps is 0"),
    (Branching, {"begin": 5, "end": 5}, "expected 0 ≤ begin < end"),
    *((Branching, {name: 0}, f"rollouts have {name} 0, expected an integer from 1")
      for name in ("first", "last", "rollouts", "every", "kept")),
    (Branched, {"real": 2}, "real is 2, expected a share"),
    (TwoStores, {"real": -1}, "real is -1, expected a share"),
    (ActionGradient, {"target": OneStep(), "weight": -1}, "MAGE has weight -1"),
    (Automatic, {"first": 0}, "temperature has first 0, expected a positive number"),
    (Automatic, {"entropy": math.nan}, "entropy is nan, expected a finite number of nats"),
    (Planning, {"horizon": 0}, "planning has horizon 0, expected an integer from 1"),
    (Planning, {"horizon": 2, "rounds": 1.5}, "planning has rounds 1.5, expected an integer"),
    (Planning, {"horizon": 2, "samples": 4, "elites": 5}, "planning has elites 5 of 4 samples"),
    (LearnedModel, {"members": 0}, "model has members 0"),
    (LearnedModel, {"rows": 0}, "model has rows 0"),
    (LearnedModel, {"learning_rate": 0.0}, "model has learning_rate 0.0"),
    (LearnedModel, {"loss": "nll"}, "loss 'nll', expected one of nll, mse, dd, multistep"),
    *((LearnedModel, {"members": 4, "elites": count}, f"elites {count}, expected 1 to its 4")
      for count in (0, 5)),
    *((Settings, {"probe_budget": share}, "probe_budget is .*, expected a share in")
      for share in (0, -0.1, 1.5, math.nan, "0.1")),
    (Settings, {"gradient_truth": "exact"}, "gradient_truth is 'exact', expected"),
    (FixedWeights((0.5, 0.5)), {"iteration": 0, "horizons": (0,)}, "one for each"),
]  # fmt: skip
ONE, NO_MODEL = "follows one gradient", "has no entropy in it: take one of"
CHANGES = [
    *((with_horizons, name, horizons, words) for name, horizons, words in [
        ("td3", (0, 25), "td3 follows one gradient"), ("sac", (0, 5), "sac follows one gradient"),
        ("sac", (5,), "first action alone at horizons"), ("mpg-v2", (5, 25), "needs 0 among them"),
        ("mpg-v2", (14,), "needs 0 among them"), ("mpg-v2", (0, -1), "from 0"),
        ("svg", (3,), "follows horizon 1 alone"), ("svg-inf", (0,), MISFIT),
        ("rp-dr", (0,), MISFIT), ("rp-dr", (3, 5), ONE),
    ]),
    (with_weights, "td3", (0.5,), "td3 follows one gradient: leave them out and give one horizon"),
    (with_weights, "mpg-v2", (1.0,), r"expected one for each of the horizons \(0, 25\)"),
    (with_weights, "mpg-v2", (0.0, 0.0), "expected finite numbers, not all zero"),
    (with_weights, "mpg-v2", (1.0, math.nan), "expected finite numbers, not all zero"),
    (with_starts, "shac", 0.5, "follows replayed transitions"),
    *((with_temperature, "sac", alpha, "temperature is .*, expected a number from 0")
      for alpha in (-0.1, math.inf, math.nan)),
    *((with_temperature, name, Automatic(), f"the return of {name} {NO_MODEL}")
      for name in ("td3", "svg", "bptt")),
    (steered, "mpg-v2", "follow", "rehearse"),
    (steered, "svg", "rehearse", "does not follow"),
    (steered, "shac", "rehearse", "does not follow"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "words"), ROWS)
def test_a_row_whose_parts_do_not_fit(name, changes, words):
    with pytest.raises(InputError, match=words):
        replace(find(name), **changes)


@pytest.mark.parametrize(("part", "options", "words"), PARTS)
def test_a_part_with_an_impossible_number(part, options, words):
    with pytest.raises(InputError, match=words):
        part(**options)


@pytest.mark.parametrize(("change", "name", "value", "words"), CHANGES)
def test_a_change_that_a_row_cannot_have(change, name, value, words):
    with pytest.raises(InputError, match=words):
        change(find(name), value)


def test_what_depends_on_another_choice():
    mixed = replace(
        row("mpg-v2"), terms=(Term(0), Term(5, "all")), weights=FixedWeights((0.5, 0.5)), name="mix"
    )
    for call, words in (
        (lambda: measured(find("bptt"), weights="measured"), "no critic of actions to measure"),
        (lambda: measured(mixed, weights="measured"), "only terms of the first action can be"),
        (lambda: steered(row("mpg-v2"), "accept", 0), "steer_every"),
        (lambda: find("shac").rows(20_000), "takes windows of 32 steps of 20000 agents"),
        (
            lambda: replace(find("svg-inf"), replay=9).rows(8),
            "32 steps of 8 agents, but its replay",
        ),
        (lambda: find("mpg"), "did you mean mpg-v"),
    ):
        with pytest.raises(InputError, match=words):
            call()


LIMIT = (2.0, 1.0)
BY_MEASURED, PROCESSES = {"weights": "measured"}, {"asynchronous": Asynchronous()}
RUNS = [
    ("td3", {"seeds": 0}, "seeds is 0, expected an integer from 1"),
    ("td3", {"iteration": 5}, "did you mean iterations|setting 'iteration' is not known"),
    ("td3", {"termination": "stop"}, "termination is 'stop'"),
    ("td3", {"precision": "half"}, "precision is 'half'"),
    ("td3", {"keep": (2.0,)}, "shares of the run"),
    ("td3", {"device": "abacus"}, "expected 'cpu' or 'cuda'"),
    ("td3", {"device": "cuda:77"}, "cannot be used"),
    ("td3", BY_MEASURED, "td3 follows one gradient: mixtures are mpg-v1"),
    ("sac", {"horizon": "measured"}, "sac has one horizon: take mpg-v1"),
    ("n-step-adp", BY_MEASURED, ONE),
    ("mpg-v2", BY_MEASURED | {"horizon": "measured"}, "choose one"),
    ("mpg-v2", {"weights": "best"}, "weights is 'best', expected 'rule' or 'measured'"),
    ("mpg-v2", BY_MEASURED | {"by": "best"}, "by is 'best', expected one of"),
    ("mpg-v2", BY_MEASURED | {"measure_every": 0}, "measure_every is 0"),
    ("mpg-v2", BY_MEASURED | {"measure_starts": 3}, "measure_starts is 3"),
    ("mpg-v2", BY_MEASURED | {"steer": "accept"}, "take one"),
    ("mpg-v2", {"gradient_every": 5, "gradient_truth": "score"},
     "gradient_truth is 'score', but the mixture of mpg-v2"),
    ("shac", PROCESSES, "shac cannot be trained asynchronously: its batches are the newest steps"),
    ("mbpo", PROCESSES, "mbpo cannot be trained asynchronously: it learns a model between"),
    ("td3", PROCESSES | {"probe_budget": 0.1}, "probe_budget is for updates in this process"),
    ("td3", {"asynchronous": Asynchronous(buffers=2), "warmup": 16, "agents": 9},
     "warmup is 16 transitions, too few for 2 buffers"),
    ("td3", {"ray": "local"}, "the run is in one process"),
    ("sac", {"policy": Policy(3, 2)}, "policy is a Policy, expected gradlab's GaussianPolicy"),
    ("ddpg", {"policy": nn.Linear(3, 2)}, "policy is a Linear, expected gradlab's Policy"),
    ("ddpg", {"policy": Policy(4, 2, limit=LIMIT)}, "policy has state_dim 4, expected 3"),
    ("ddpg", {"policy": Policy(3, 1, limit=(1.0,))}, "policy has action_dim 1, expected 2"),
    ("ddpg", {"policy": Policy(3, 2, bias=False, limit=LIMIT)}, "policy has bias False"),
    ("sac", {"policy": GaussianPolicy(3, 2)}, "policy has squash False, expected True"),
    ("sac", {"policy": GaussianPolicy(3, 2, squash=True)},
     r"policy has limit \[1.0, 1.0\], expected \[2.0, 1.0\]"),
    ("ddpg", {"critic": VCritic(3)}, "critic is a VCritic, expected gradlab's QCritic"),
    ("svg", {"critic": QCritic(3, 2)}, "critic is a QCritic, expected gradlab's VCritic"),
    ("ddpg", {"critic": QCritic(3, 1)}, "critic has action_dim 1, expected 2"),
    ("bptt", {"critic": QCritic(3, 2)}, "critic is given, but bptt has none"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "words"), RUNS)
def test_a_run_that_cannot_be(tmp_path, name, options, words):
    with pytest.raises(InputError, match=words):
        train(row(name), task(), tmp_path / "run.h5", **SMALL | options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["policy", "critic"])
def test_spectral_norms_would_change_the_networks_that_are_given(tmp_path, role):
    held = replace(row("ddpg"), **{f"{role}_spectral": "all"})
    given = {"policy": Policy(3, 2, limit=LIMIT), "critic": QCritic(3, 2)}[role]
    with pytest.raises(InputError, match=f"{role} is given, but spectral norms would change it"):
        train(held, task(), tmp_path / "run.h5", **{role: given}, **SMALL)


class Opaque:
    """The double integrator as a program without derivatives."""

    state_dim, action_dim, noise_dim, differentiable = 2, 1, 2, False
    step, sample_noise = (
        getattr(double_integrator().simulator, name) for name in ("step", "sample_noise")
    )

    def linearize(self, state, action, noise=None):
        raise NotImplementedError("a closed program")


CLOSED = replace(double_integrator(), simulator=Opaque())
ALIKE, BARE = (replace(world, prior=None) for world in (task(), double_integrator()))
NO_JACOBIANS = "no Jacobians.*a closed program"
WORLDS = [
    (CLOSED, "shac", {}, "shac follows the simulator's Jacobians.*a closed pro"),
    (CLOSED, "td3", {"gradient_every": 5}, f"gradient_every is 5, but .*{NO_JACOBIANS}"),
    (CLOSED, "mpg-v2", BY_MEASURED, f"gives {NO_JACOBIANS}.*take 'rule'"),
    (BARE, "mpg-v2", BY_MEASURED, "has no prior"),
    (BARE, "td3", {"planning": Planning(2)}, "planning needs a model, but td3 learns none"),
    (BARE, replace(row("mage"), model=None), {}, "mage needs a model"),
    (BARE, replace(row("mbpo"), model=None), {}, "mbpo needs a model"),
    (double_integrator(), "svg-inf", {"gradient_every": 5, "agents": 3},
     "svg-inf is measured on its newest paths.*agents=4"),
]  # fmt: skip


@pytest.mark.parametrize(("world", "algorithm", "options", "words"), WORLDS)
def test_a_task_that_a_row_cannot_be_trained_or_measured_on(
    tmp_path, world, algorithm, options, words
):
    with pytest.raises(InputError, match=words):
        train(algorithm, world, tmp_path / "run.h5", **options)
    assert not list(tmp_path.iterdir())


def test_a_model_is_asked_for_where_the_task_has_none():
    settings = Settings(precision="float64", termination="ignore")
    for name in ("mpg-v1", "mpg-v2", "mpg-general", "n-step-adp"):
        with pytest.raises(InputError, match="has no prior"):
            Learner(row(name), ALIKE, settings)
    for name in ("td3", "sac", "ddpg", "n-step-dpg"):
        Learner(row(name), ALIKE, settings)
