"""Rows of every family better the return: from about -100 in the small world, -300 elsewhere."""

from dataclasses import replace

import pytest

import gradlab
from gradlab.storage.journal import read
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.loop import train
from gradlab.training.models.branches import Branching
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import Copied
from tests.training.small_runs import MODEL, SMALL, row, task


def bettered(tmp_path, algorithm, world, share, iterations, **options):
    """Every seed ends with a loss of less than this share of its first one."""
    options = SMALL | {"iterations": iterations, "evaluate_every": iterations} | options
    path = train(algorithm, world, tmp_path / "run.h5", **options)
    returns = read(path).groups["evaluations"]["return_mean"].values
    assert (returns[-1] > share * returns[0]).all(), returns


FAST = {"policy_rate": (1e-3, 1e-4), "value_rate": (3e-3, 3e-4)}
PLAIN = {
    "mpg-v2": (replace(row("mpg-v2"), policy_rate=(3e-3, 3e-5)), 300, {}),
    "bptt": (replace(with_horizons(row("bptt"), (8,)), policy_rate=(3e-3, 3e-4)), 200, {}),
    "svg": (
        replace(
            row("svg"), hidden=(32, 32), batch=64, model=None, target_critic=Copied(20), **FAST
        ),
        800,
        {"interval": 1, "agents": 8},
    ),
    "svg-inf": (
        replace(row("svg-inf"), model=None, policy_rate=(3e-3, 3e-4), hidden=(16, 16)), 150, {}
    ),
}  # fmt: skip
SHARES = {"svg": 0.75, "svg-inf": 0.5}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("mpg-v2", "svg"))) for name in PLAIN],
)
def test_with_the_tasks_own_model(tmp_path, name):
    algorithm, iterations, options = PLAIN[name]
    bettered(tmp_path, algorithm, task(), SHARES.get(name, 1 / 3), iterations, seeds=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rp-dp", "rp-dp-sn", "rp-dr", "ddppo", "mbpo", "svg"])
def test_with_a_learned_model(tmp_path, name):
    small = row(name)
    model = replace(small.model, hidden=(32,), first_steps=500, every=100, steps=100, batch=64)
    quick = replace(small, hidden=(32, 32), batch=64, model=model, tau=0.02, **FAST)
    options, share, iterations = {"agents": 8}, 0.5, 600
    if small.source.branching is not None:
        branching = Branching(every=100, rollouts=500, first=1, last=2, end=600)
        quick = replace(quick, source=replace(small.source, branching=branching))
    if name == "mbpo":
        quick, iterations = replace(quick, source=replace(quick.source, real=0.05)), 800
    if name == "svg":
        options, share, iterations = options | {"interval": 1}, 0.75, 800
        quick = replace(quick, target_critic=Copied(20), tau=small.tau)
    bettered(tmp_path, quick, replace(task(), prior=None), share, iterations, seeds=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shac", "ahac", "sapo", "abpt", "agpo", "apg", "dmo"])
def test_on_windows_of_the_double_integrator(tmp_path, name):
    small = row(name)
    if small.model is not None:
        model = replace(MODEL, hidden=(32,), every=10, first_steps=400, steps=50, batch=64)
        small = replace(small, model=model)
    quick = replace(
        small, hidden=(16, 16), policy_rate=(1e-2, 1e-3), terms=(Term(16, "all"),),
        source=Newest(16),
    )  # fmt: skip
    world = gradlab.tasks.double_integrator()
    bettered(tmp_path, quick, world, 1 / 3, 60, agents=6, episode=40, seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_maac_on_the_analytic_pendulum(tmp_path, learned):
    model = LearnedModel(members=3, hidden=(32, 32), first_steps=1000, steps=200)
    algorithm = replace(
        find("maac-no-steve"), hidden=(64, 64), batch=64, policy_rate=(1e-3, 1e-4),
        value_rate=(1e-3, 1e-4), model=model if learned else None,
    )  # fmt: skip
    path = train(
        algorithm, gradlab.tasks.inverted_pendulum(engine="analytic"), tmp_path / "run.h5",
        iterations=2000, evaluate_every=1000, evaluation_starts=16, warmup=1000, agents=16,
        interval=1, seeds=3,
    )  # fmt: skip
    returns = read(path).groups["evaluations"]["return_mean"].values
    assert (returns[-1] > returns[0]).all()
