"""gradlab: how good are your policy gradients?

    measure(task, policy, critic) → Profile      bias, variance and MSE of every horizon
    attribute(profile) → Attribution                  what the bias and the variance come from
    Estimator(states, jacobians, actions, tail)  any policy gradient as one value
    choose(profile) → Choice                     horizon, weights, how sure, what if
    compare_jacobians(simulator, model, …)       a model's Jacobians against the simulator's
    certify(system)                              are a simulator's derivatives those of its step?
    differentiable(environment)                  a Gymnasium MuJoCo task with derivatives in torch
    compare_remedies(task, policy, critic, …)    is a remedy worth it? paired, one thing changed
    train(algorithm, task)                       a run of training, from one table of algorithms
    sweep(table, output)                         many measurements or trainings, by many processes
    race(task, policy, critic)                   where each gradient leads in K updates
    step(before, after, env)                     did the last updates raise the return?
    load(path) → Run                             the labelled tree of any result
    report(path)                                 one HTML page to decide from
    audit(loss, batch, kind=…)                   is a loss right? asked on changed batches
    conform(loss, "bandit")                      the expected gradient against the exact one
    Probe(policy, optimizer)                     the gradients of your own loop, while it runs

Names are imported when they are first used, so that the command line answers --help at once.
"""

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from gradlab.errors import imported
from gradlab.machine import version

if TYPE_CHECKING:
    from gradlab import figures, fitting, systems, tasks, training
    from gradlab.gradients.estimator import Estimator
    from gradlab.gradients.setting import Tail
    from gradlab.losses.conformance import conform
    from gradlab.losses.laws import audit
    from gradlab.measurement.measure import measure
    from gradlab.probe.probe import Probe
    from gradlab.reporting import report
    from gradlab.runs.attribution import attribute, attribution
    from gradlab.runs.profile import Profile
    from gradlab.runs.run import Run, load
    from gradlab.systems.differentiable import differentiable
    from gradlab.tasks import Task
    from gradlab.tools.certify.compute import certify
    from gradlab.tools.jacobians.compute import compare_jacobians
    from gradlab.tools.race.compute import race
    from gradlab.tools.race.step import step
    from gradlab.tools.remedies.compute import compare_remedies
    from gradlab.tools.sweep.command import sweep
    from gradlab.training.loop import train
    from gradlab.verdicts.choice import choose

    __version__: str

__all__ = [
    "Estimator",
    "Probe",
    "Profile",
    "Run",
    "Tail",
    "Task",
    "attribute",
    "attribution",
    "audit",
    "certify",
    "choose",
    "compare_jacobians",
    "compare_remedies",
    "conform",
    "differentiable",
    "figures",
    "fitting",
    "load",
    "measure",
    "race",
    "report",
    "step",
    "sweep",
    "systems",
    "tasks",
    "train",
    "training",
]

_HOMES = {
    "Estimator": "gradlab.gradients.estimator",
    "Probe": "gradlab.probe.probe",
    "Profile": "gradlab.runs.profile",
    "Run": "gradlab.runs.run",
    "Tail": "gradlab.gradients.setting",
    "Task": "gradlab.tasks",
    "attribute": "gradlab.runs.attribution",
    "attribution": "gradlab.runs.attribution",
    "audit": "gradlab.losses.laws",
    "certify": "gradlab.tools.certify.compute",
    "choose": "gradlab.verdicts.choice",
    "conform": "gradlab.losses.conformance",
    "compare_jacobians": "gradlab.tools.jacobians.compute",
    "compare_remedies": "gradlab.tools.remedies.compute",
    "differentiable": "gradlab.systems.differentiable",
    "load": "gradlab.runs.run",
    "measure": "gradlab.measurement.measure",
    "race": "gradlab.tools.race.compute",
    "report": "gradlab.reporting",
    "step": "gradlab.tools.race.step",
    "sweep": "gradlab.tools.sweep.command",
    "train": "gradlab.training.loop",
}


if version("torch").startswith(("0.", "1.", *(f"2.{k}." for k in range(6)))):
    raise ImportError(f"torch is {version('torch')}, expected ≥ 2.6: pip install -U torch")
if sys.platform != "linux":
    warnings.warn(f"gradlab runs on Linux only, not {sys.platform}: use a container", stacklevel=2)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # of pyproject.toml, the one place where it stands
        return version()
    if name in _HOMES:
        return imported(f"{_HOMES[name]}:{name}")
    if name in __all__:
        return importlib.import_module(f"gradlab.{name}")
    raise AttributeError(f"module 'gradlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
