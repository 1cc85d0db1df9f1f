"""Would float32 have given the same gradient? Mean gradients at the longest horizon, twice."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.gradients.carried import carried
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.path_gram import path_mean_gradients
from gradlab.gradients.starts import Starts
from gradlab.sanity.probe import Probe

LIMIT = 0.01  # relative error of the mean gradient


def precision(probe: Probe) -> list[Finding]:
    """float32 against float64 for every estimator."""
    return [_compared(name, each, probe) for name, each in probe.estimators.items()]


def _compared(name: str, estimator: Estimator, probe: Probe) -> Finding:
    n = estimator.tail.horizon
    check = f"float32 against float64, {name} at h = {n}"
    exact = _mean(estimator, probe.policy, probe.starts, probe)
    try:
        short = _mean(*_single(estimator, probe), probe).double()
    except (RuntimeError, TypeError, InputError) as error:
        reason = str(error).splitlines()[0][:90]
        return Finding(check, f"float32 is not supported ({reason})", "not tested", True)
    cosine = float(nn.functional.cosine_similarity(exact, short, dim=0))
    gap = float((exact - short).norm() / exact.norm().clamp_min(1e-300))
    limited = not gap <= LIMIT
    result = f"cosine {cosine:.6g}, relative error {gap:.1g} ({len(probe.starts.states)} starts)"
    meaning = "precision-limited: no"
    if limited:
        meaning = (
            "precision-limited: yes; use float64 or a shorter horizon before blaming the model"
        )
    return Finding(check, result, meaning, not limited)


def _single(estimator: Estimator, probe: Probe) -> tuple[Estimator, nn.Module, Starts]:
    critic = estimator.tail.critic
    single = None if critic is None else copy.deepcopy(critic).float()
    starts = replace(
        probe.starts,
        states=probe.starts.states.float(),
        weight=probe.starts.weight.float(),
        path=None,
        draws={},
    )
    tail = replace(estimator.tail, critic=single)
    return replace(estimator, tail=tail), copy.deepcopy(probe.policy).float(), starts


def _mean(estimator: Estimator, policy: nn.Module, starts: Starts, probe: Probe) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        found = carried(
            estimator, policy, starts, (estimator.tail.horizon,), probe.seed, probe.termination
        )
    return path_mean_gradients(found.jacobian, found.costates, found.ends)[0]
