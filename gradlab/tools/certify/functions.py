"""A differentiable map that is no simulator: an MPC layer, a renderer, a solver at its solution.

    y = f(x), [N, n] → [N, m]        J = ∂y/∂x against differences of f

It is examined as the step s′ = f(a) of a system without rewards, at the given inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.function import from_function
from gradlab.tasks.task import Task
from gradlab.tools.certify.compute import certify
from gradlab.tools.certify.result import Certification, Finding
from gradlab.user_code.calls import running

_BLOCK = "B"  # ∂s′/∂a, which is ∂y/∂x
_WORDS = (("∂s′/∂a", "∂y/∂x"), ("the step", "the function"), ("′", ""))


def certify_function(
    function: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    fail_above: float = 1e-3,
    seed: int = 0,
    name: str = "",
    progress: Any = None,
) -> Certification:
    """Whether the derivatives of y = f(x) are those of f.

    Args:
        function: x [N, n] → y [N, m], every row by itself, in torch.
        inputs: [N, n], at least 16 where f is used.
        fail_above: relative error from which a derivative is wrong.
        seed: of directions and of the rows that are compared.
        name: in sentences; "" the function's own.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: inputs that are no numbers [N, n], or outputs without a width or a gradient.
    """
    validation.function("function", function, "inputs [N, n] → outputs [N, m]")
    try:
        given = torch.as_tensor(inputs).detach().cpu()
        x = given.double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"inputs holds no numbers: {error}") from None
    if x.ndim != 2 or len(x) < 16:
        raise InputError(f"inputs has shape {tuple(x.shape)}, expected [N, n] with N ≥ 16")
    # A float32 network takes no float64.
    mine = given.dtype if given.dtype.is_floating_point else torch.float64
    with running("the function"):
        y = function(x[:2].to(mine).requires_grad_())
    if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != 2:
        raise InputError(f"the function gave {validation.shown(y)} for 2 inputs, expected [2, m]")
    if not y.requires_grad:
        raise InputError("the function's outputs have no gradient: is something detached in it?")

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return function(action.to(mine)).to(action), torch.zeros_like(state[:, 0])

    m, n = y.shape[1], x.shape[1]
    system = from_function(step, state_dim=m, action_dim=n)
    task = Task(
        name or getattr(function, "__name__", type(function).__name__), system, None,
        lambda k, generator: torch.zeros(k, m, dtype=torch.float64), discount=0.5, horizon=1,
        state_names=tuple(f"y{k}" for k in range(m)), action_names=tuple(f"x{k}" for k in range(n)),
    )  # fmt: skip
    states = torch.zeros(len(x), m, dtype=torch.float64)
    more = {} if progress is None else {"progress": progress}
    found = certify(
        task, states, x, samples=len(x), seed=seed, fail_above=fail_above, horizon=1, **more
    )
    return replace(
        found,
        findings=tuple(
            _worded(each)
            for each in found.findings
            if each.block in (_BLOCK, None) and each.kind != "sign"
        ),
        rows=tuple({**row, "block": "y"} for row in found.rows if row["block"] == _BLOCK),
    )


def _worded(finding: Finding) -> Finding:
    text = finding.sentence
    for old, new in _WORDS:
        text = text.replace(old, new)
    return replace(finding, sentence=text, block="y" if finding.block else None)
