"""A loss of drawn actions against the gradient that it stands for, both enumerated: no interval.

    bandit    loss(log_prob [G], reward [G])          groups of G of 3 actions   ∇ E[r]
    penalty   loss(log_prob [N], prior [N])           actions                    ∇ KL(π | prior)
    tree      loss(log_prob [N, 2], reward [N, 2])    episodes of two steps      ∇ E[r0 + γ r1]

Four random tasks together, so that nothing is right by chance. Of a biased gradient no cosine says
whether it is meant (GRPO's deviation .88, a clipped reward .90): published designs are named.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.provenance import environment
from gradlab.runs.layout import table
from gradlab.runs.run import FindingsRun, header
from gradlab.storage.records import Record
from gradlab.user_code import differentiating, running

Loss = Callable[[Tensor, Tensor], Tensor]
_TASKS, _GROUP, _GAMMA = 4, 4, 0.9
_ARMS = 3


def _draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _slope(loss: Loss, theta: Tensor, *given: Tensor) -> Tensor:
    """∂loss/∂θ."""
    with running("loss"):
        value = loss(*given)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InputError(f"loss returns {validation.shown(value)}, expected a scalar tensor")
    if not value.requires_grad:
        return torch.zeros_like(theta)
    found = torch.autograd.grad(value.reshape(()), theta, allow_unused=True)[0]
    return torch.zeros_like(theta) if found is None else found


def _bandit(loss: Loss, task: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    start, pay = 0.5 * _draw(task, _ARMS), _draw(task + 50, _ARMS)
    p, g = torch.softmax(start, 0), torch.zeros(_ARMS, dtype=torch.float64)
    for arms in itertools.product(range(_ARMS), repeat=_GROUP):
        a, theta = torch.tensor(arms), start.clone().requires_grad_()
        g -= p[a].prod() * _slope(loss, theta, torch.log_softmax(theta, 0)[a], pay[a])
    return g, p * (pay - p @ pay), {}


def _penalty(loss: Loss, task: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    start, prior = 0.5 * _draw(task, _ARMS), torch.log_softmax(0.5 * _draw(task + 50, _ARMS), 0)
    p, g = torch.softmax(start, 0), torch.zeros(_ARMS, dtype=torch.float64)
    for arm in range(_ARMS):
        theta, a = start.clone().requires_grad_(), torch.tensor([arm])
        g -= p[arm] * _slope(loss, theta, torch.log_softmax(theta, 0)[a], prior[a])
    cost = p.log() - prior
    return g, -p * (cost - p @ cost), {}


def _tree(loss: Loss, task: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """∇ E[r0 + γ r1] = E[∇ log π0 (r0 + γ r1) + γ ∇ log π1 r1]: most code leaves the last γ out."""
    start, first, second = 0.5 * _draw(task, 3), _draw(task + 50, 2), _draw(task + 70, 2, 2)
    terms = {"π0 r0": (0, 0, 1), "π0 γ r1": (0, 1, _GAMMA), "π1 γ r1": (1, 1, _GAMMA),
             "π1 r0": (1, 0, 1)}  # fmt: skip
    g = torch.zeros(3, dtype=torch.float64)
    parts = {name: g.clone() for name in terms}
    for a, b in itertools.product((0, 1), repeat=2):
        theta = start.clone().requires_grad_()
        chosen = torch.stack([theta[0] * (2 * a - 1), theta[1 + a] * (2 * b - 1)])
        log, r = torch.nn.functional.logsigmoid(chosen), torch.stack([first[a], second[a, b]])
        p = log.detach().sum().exp()
        for name, (t, u, weight) in terms.items():
            slope = torch.autograd.grad(log[t], theta, retain_graph=True)[0]
            parts[name] += p * weight * r[u] * slope
        g -= p * _slope(loss, theta, log[None], r[None])
    return g, parts["π0 r0"] + parts["π0 γ r1"] + parts["π1 γ r1"], parts


KINDS: Mapping[str, Callable[[Loss, int], tuple[Tensor, Tensor, dict[str, Tensor]]]] = {
    "bandit": _bandit,
    "penalty": _penalty,
    "tree": _tree,
}


def _over_deviation(log_prob: Tensor, reward: Tensor) -> Tensor:
    return -(log_prob * (reward - reward.mean()) / (reward.std() + 1e-8)).mean()


def _best(log_prob: Tensor, reward: Tensor) -> Tensor:
    return -log_prob[reward.argmax()]


def _pair(beta: float) -> Loss:
    return lambda log_prob, reward: (
        -torch.nn.functional.logsigmoid(
            beta * (log_prob[reward.argmax()] - log_prob[reward.argmin()])
        )
    )


def _k3(log_prob: Tensor, prior: Tensor) -> Tensor:
    return ((prior - log_prob).exp() - 1 - (prior - log_prob)).mean()


def _undiscounted(log_prob: Tensor, reward: Tensor) -> Tensor:
    to_go = torch.stack([reward[:, 0] + _GAMMA * reward[:, 1], reward[:, 1]], 1)
    return -(log_prob * to_go).sum(1).mean()


# Published designs whose expected gradient is another one, on purpose.
DESIGNS: Mapping[str, Mapping[str, Loss]] = {
    "bandit": {
        "advantages over their deviation (GRPO)": _over_deviation,
        "the best of the group": _best,
        **{f"a preferred pair (DPO, β = {beta:g})": _pair(beta) for beta in (0.05, 0.1, 0.5, 1)},
    },
    "penalty": {"k3 in the loss": _k3},
    "tree": {"γ^t left out of later steps": _undiscounted},
}
_EXACT, _SAME = 1e-6, 1e-2  # ‖g − k truth‖ / ‖k truth‖: of the truth; of a design, whose ε differ


def _over_tasks(loss: Loss, kind: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    found = [KINDS[kind](loss, task) for task in range(_TASKS)]
    parts = {name: torch.cat([each[2][name] for each in found]) for name in found[0][2]}
    return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found]), parts


def _fitted(g: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """k, the cosine, and ‖g − k truth‖ / ‖k truth‖."""
    k = float((g @ truth) / (truth @ truth))
    cosine = float(g @ truth / (g.norm() * truth.norm()).clamp_min(1e-300))
    return k, cosine, float((g - k * truth).norm() / truth.norm()) / max(abs(k), 1e-9)


@differentiating
def conform(loss: Loss, kind: str, exact: bool = False) -> FindingsRun:
    """The expected gradient of a policy-gradient loss against the enumerated one.

    Args:
        loss: of log π and rewards (or the prior's log π), as `kind` says; minimised.
        kind: "bandit", "penalty" or "tree".
        exact: it is promised to be the gradient: a bias fails.

    Returns:
        A run of kind "conformance". Its first finding is "conform.exact", "conform.biased",
        "conform.designed" (a published bias, named), "conform.zero" or "conform.downhill"; further
        ones have the scale, the rest beyond it, and of a tree the weight of each term.

    Raises:
        InputError: the loss fails, or returns no scalar.
    """
    validation.word("kind", kind, KINDS)
    validation.function("loss", loss, "log_prob and reward")
    validation.flag("exact", exact)
    g, truth, parts = _over_tasks(loss, kind)
    k, cosine, off = _fitted(g, truth)
    if float(g.norm()) < 1e-9 * float(truth.norm()):
        first = Finding("conform.zero", "fail")
    elif cosine < -0.5:
        first = Finding("conform.downhill", "fail", value=cosine)
    elif off < _EXACT and k > 0:
        first = Finding("conform.exact", "pass", value=k)
    else:
        fits = {n: _fitted(g, _over_tasks(design, kind)[0]) for n, design in DESIGNS[kind].items()}
        name = next((n for n, (scale, _, off) in fits.items() if off < _SAME and scale > 0), "")
        code = "conform.designed" if name else "conform.biased"
        decided: Any = "fail" if exact else "pass" if name else "undecided"
        first = Finding(code, decided, value=cosine, at=name)
    found = [first, Finding("conform.scale", "pass", value=k)]
    found.append(Finding("conform.rest", "pass", value=off))
    if parts:
        terms = torch.stack(list(parts.values())).T
        solved = torch.linalg.lstsq(terms, g[:, None], driver="gelsd").solution.flatten()
        weights = zip(parts, solved.tolist(), (1, 1, 1, 0), strict=True)
        found += [
            Finding("conform.term", "pass", part, value, threshold=wanted)
            for part, value, wanted in weights
        ]
    config = {"kind": kind, "exact": exact, "seed": 0}
    groups = {"verdict": table(found, Finding)}
    return FindingsRun(Record(header("conformance", config, environment()), groups))
