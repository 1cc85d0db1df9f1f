"""`gradlab.audit`: one loss, its gradient in the actor by path, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from gradlab.auditing.arguments import Audited, audited
from gradlab.auditing.evaluation import differentiable, evaluated
from gradlab.auditing.findings import Finding
from gradlab.auditing.gradients import by_path, gradient, norms
from gradlab.auditing.leaks import leaks
from gradlab.auditing.lengths import Scale, scale_findings, scales
from gradlab.auditing.screen import screen
from gradlab.auditing.zero_layers import without_zero_layers
from gradlab.auditing.zeros import zero_findings
from gradlab.user_code.grad_mode import differentiating

if TYPE_CHECKING:
    import pandas as pd

Modules = nn.Module | object


@dataclass(frozen=True)
class Audit:
    """What an actor loss does to the actor.

    Attributes:
        findings: what is wrong, then what is to be noted.
        parameters: names of the actor's trained tensors.
        norms: Euclidean norm of ∂(term)/∂(parameter) by term, path and parameter; paths are
            "model", "critic", "model and critic" and "neither" (log π, entropy, action costs).
        scales: weights of one step at two lengths; empty where `lengths` was not given.
    """

    findings: tuple[Finding, ...]
    parameters: tuple[str, ...]
    norms: Mapping[str, Mapping[str, Sequence[float]]]
    scales: tuple[Scale, ...] = ()

    @property
    def passed(self) -> bool:
        """No finding is "wrong"."""
        return not any(finding.severity == "wrong" for finding in self.findings)

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(finding.sentence for finding in self.findings)

    def table(self) -> pd.DataFrame:
        """One row for each term, path and parameter: `norm`, in units of loss per parameter."""
        import pandas as pd

        rows = [
            {"term": term, "path": path, "parameter": name, "norm": norm}
            for term, paths in self.norms.items()
            for path, values in paths.items()
            for name, norm in zip(self.parameters, values, strict=True)
        ]
        return pd.DataFrame(rows, columns=["term", "path", "parameter", "norm"])

    def __str__(self) -> str:
        return screen(self.findings, self.parameters, self.norms, self.scales)


@differentiating
def audit(
    loss: Callable[..., Any],
    actor: Modules,
    critic: Modules | None = None,
    model: Modules | None = None,
    *,
    inputs: Any = (),
    optimizer: Optimizer | None = None,
    lengths: tuple[int, int] | None = None,
    seed: int = 0,
) -> Audit:
    """Audit an actor loss: which parameters get gradient through which path, and what is lost.

    The loss is computed as it is, once, and once more for the second length and for parameters
    whose gradient is exactly zero. Parameters, their `grad`, buffers and random generators are
    afterwards as before; an environment of the user's that moves on has moved on.

    Args:
        loss: loss(*inputs) → a scalar tensor, or named terms whose sum is the loss.
        actor: a module, or several in a list or dict.
        critic, model: modules, or objects whose methods the loss calls (an environment, a System);
            one, or several in a list or dict.
        inputs: of the loss, a tuple of positional ones, as a batch.
        optimizer: the actor's; None: what its step moves is not checked.
        lengths: two lengths of a segment, as (8, 16): the loss takes them as `length=`, and the
            weights of one step are compared. None: not compared.
        seed: of every random draw in the loss.

    Raises:
        InputError: an argument is of the wrong type, or the loss fails or is no scalar.
    """
    given = audited(loss, actor, critic, model, inputs, optimizer, lengths, seed)
    with differentiable(given):
        return _audit(given)


def _audit(given: Audited) -> Audit:
    first = None if given.lengths is None else given.lengths[0]
    evaluation = evaluated(given, first)
    total = gradient(evaluation.loss, evaluation.theta)
    findings = zero_findings(given, evaluation, total)
    findings = without_zero_layers(findings, given, first)
    findings += leaks(given, evaluation.loss, total)
    compared: list[Scale] = []
    if given.lengths is not None:
        short, long = given.lengths
        compared = scales(evaluation, evaluated(given, long), long / short)
        findings += scale_findings(compared, given.lengths)
    return Audit(
        tuple(sorted(findings, key=lambda finding: finding.severity, reverse=True)),
        tuple(given.actor),
        {
            name: norms(by_path(term, evaluation.theta, evaluation.calls))
            for name, term in evaluation.terms.items()
        },
        tuple(compared),
    )
