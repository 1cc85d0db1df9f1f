"""`gradlab.certify`: arguments, and the states at which a system is examined.

A line between two visited points is cut where the second difference of the outputs is largest, and
the part around the cut is cut again. Where f is smooth the second difference over the width falls
with the width; where it does not, the line has crossed a contact, a limit or a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.progress import Progress, check_progress, silent
from gradlab.systems.function import from_function
from gradlab.systems.system import System
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tools.certify.evaluation import FEW, Points, evenly, noise_of, outputs
from gradlab.tools.certify.examination import CertifiedSubject, examined, stepped, subject
from gradlab.tools.certify.parameters import named
from gradlab.tools.certify.result import Certification, Finding
from gradlab.tools.certify.sampling import (
    Law,
    NonFiniteStep,
    Samples,
    labelled,
    law,
    limits,
    pooled,
    shifted,
    started,
    thinned,
    visited,
)
from gradlab.user_code import differentiating, running

_GRID, _CUTS = 17, 22  # points of the first cut, and halvings after it
_ASIDE = 1e-3  # of the line, how far from the kink its sides are taken
_LASTS = 0.25  # of the slope's change at a wide stencil, that is left at a 64 times narrower one
_LEAST = 1e-5  # of the outputs' spread over the line: a smaller change is rounding
_NOISES = 32.0  # times the step's own noise over the stencil, likewise


def _pushed(drawn: Law, seen: Samples, n: int) -> Samples:
    """At most n points, a third of them on kinks that n lines cross, the others on both sides."""
    system, z = drawn.system, seen.points.z
    rows = evenly(len(z), n)
    other = rows[torch.randperm(len(rows), generator=stream(drawn.seed, "certify lines"))]
    ends = z[rows], torch.lerp(z[rows], z[other], drawn.reach)
    at, kinked = _found(system, seen.points, rows, *ends)
    found = kinked.nonzero().flatten()
    found = found[evenly(len(found), n // 3)] if len(found) else found
    step, on = _ASIDE * (ends[1] - ends[0])[found], at[found]
    points = torch.cat([on, on - step, on + step])
    samples = labelled(system, points, "kinks", drawn.seed, None)
    return Samples(
        samples.points, samples.origin, samples.step, torch.arange(len(points)) < len(on)
    )


def _found(
    system: System, points: Points, rows: Tensor, begin: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the outputs bend most on every line [K, ·], and whether that is a kink, [K]."""
    noise = points.at(rows).noise

    def values(fractions: Tensor) -> Tensor:
        """y [k, K, out] in units of spread at fractions [k, K] of the lines."""
        z = begin + fractions[..., None] * (end - begin)
        given = None if noise is None else noise.repeat(len(fractions), 1)
        y = outputs(system, Points(z.reshape(-1, z.shape[-1]), given))
        return y.reshape(*fractions.shape, -1)

    def bent(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
        """Norm of the second difference in spreads of the line; what rounding makes is 0."""
        bend = (before - 2 * at + after).abs()
        shown = torch.where(bend > rounding, bend / spread, 0.0).nan_to_num()
        return shown.square().sum(-1).sqrt()

    lines = torch.arange(len(begin))
    grid = torch.linspace(0, 1, _GRID).to(begin)
    y = values(grid[:, None].expand(-1, len(begin)))
    spread = (y.amax(0) - y.amin(0)).nan_to_num()
    spread = torch.where(spread > 0, spread, torch.inf)
    rounding = _NOISES * torch.finfo(y.dtype).eps * y.abs().amax(0)
    low, width = torch.zeros(len(begin)).to(begin), grid[1].expand(len(begin))
    for _ in range(_CUTS):
        # Of the inner points, and the index of the one before.
        best = bent(y[:-2], y[1:-1], y[2:]).argmax(0)
        low = low + best * width
        before, at, after = (y[best + k, lines] for k in range(3))
        width = width / 2
        quarters = values(torch.stack([low + width, low + 3 * width]))
        y = torch.stack([before, quarters[0], at, quarters[1], after])
    middle = low + 2 * width
    changes = []  # |f(m + d) − 2 f(m) + f(m − d)| / d in spreads of the line, [K]
    for d in (4 * width, 64.0 * 4 * width):
        changes.append(bent(*values(torch.stack([middle - d, middle, middle + d]))) / d)
    narrow, wide = changes
    noisy = _NOISES * noise_of(system, points) / (4 * width)
    kinked = (narrow > _LASTS * wide) & (narrow > noisy.clamp_min(_LEAST))
    return begin + middle[:, None] * (end - begin), kinked


_FEWEST = 16  # samples
_SHARES = {"random": 0.1, "limits": 0.12, "kinks": 0.12}  # of the samples, half of them starts
_OUTLYING = 1e4  # interquartile ranges
_VERSIONS = ("gradlab", "commit", "python", "torch", "numpy", "mujoco")


@differentiating
def certify(
    system: System | Task,
    states: Any = None,
    actions: Any = None,
    *,
    noise: Any = None,
    task: Task | None = None,
    policy: nn.Module | None = None,
    parameters: Any = None,
    samples: int = 2048,
    seed: int = 0,
    fail_above: float = 1e-3,
    progress: Progress = silent,
) -> Certification:
    """Whether a system's derivatives are those of its own step, and where not.

    Args:
        system: a System, or a Task, whose simulator, start law, limits and names are used. With a
            method `contacts(state) -> bool [N]`, states in contact are a stratum of their own.
        states, actions: [N, ds] and [N, da], where derivatives are taken. With both, only there;
            states alone are pooled with what is drawn.
        noise: [N, noise_dim] of the given states; None: drawn.
        task: of a bare system, for its start law, limits and names.
        policy: module, state → action, of all rollouts; None: random actions.
        parameters: of the step, a module or a dict of float tensors that it reads: the gradients
            in them are judged, too.
        samples: number of states that are drawn.
        seed: of every draw.
        fail_above: relative error from which a derivative is wrong.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    about = subject(system, task, states, actions, noise, policy)
    progress = check_progress(progress)
    validation.whole("samples", samples, _FEWEST)
    validation.whole("seed", seed)
    tolerance = validation.number("fail_above", fail_above, above=0)
    varied = None if parameters is None else named(parameters)
    half = -(-samples // 2)
    drawn = law(about.system, about.task, about.policy, about.states, seed, half)
    try:
        taken, loss, off, left = _samples(about, drawn, samples)
        result = examined(about, taken, loss, drawn, tolerance, varied, progress)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise InputError(
                f"samples is {samples}, which does not fit into memory: lower it"
            ) from error
        raise
    asked = {"samples": samples, "seed": seed, "fail_above": tolerance}
    given = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    environment = provenance.environment()  # without the time: the same states say the same
    made = {
        "command": f"gradlab.certify(system, {given})", "seed": seed, "starts": _starts(about),
        "versions": {name: environment[name] for name in _VERSIONS},
    }  # fmt: skip
    if off is not None:
        ranges = result.facts["ranges"][: about.system.state_dim]
        lowest = min(each["lowest"] for each in ranges)
        highest = max(each["highest"] for each in ranges)
        made |= {"ran off": off[0], "rollouts": off[1], "drawn states": [lowest, highest]}
    found = (*result.findings, *left)
    return replace(result, findings=found, facts={**result.facts, **made})


def _starts(about: CertifiedSubject) -> str:
    """Where the examined states come from."""
    if about.states is not None:
        if about.actions is not None:
            return "states and actions are the given ones"
        return "rollouts begin at the given states"
    if about.task is not None:
        return "rollouts begin at the task's own starts"
    return (
        "rollouts begin at normal states of scales 0.1, 1 and 4, since a System has no start law: "
        "give a Task, or states="
    )


def _samples(
    about: CertifiedSubject, drawn: Law, n: int
) -> tuple[Samples, NonFiniteStep | None, tuple[int, int] | None, list[Finding]]:
    """The given points alone, or pooled with drawn ones, half of which are starts where no states
    are given; what `visited` says of rollouts, and what of these was left out."""
    if about.states is not None and about.actions is not None:
        z = torch.cat([about.states, about.actions], 1)
        return labelled(about.system, z, "given", drawn.seed, about.noise), None, None, []
    if about.states is None:
        given, rolled = started(drawn, -(-n // 2)), n // 2
    else:
        a = drawn.action_size * drawn.draw("given", len(about.states), about.system.action_dim)
        z = torch.cat([about.states, a], 1)
        given, rolled = labelled(about.system, z, "given", drawn.seed, about.noise), n
    seen, loss, off = visited(drawn, n)
    stepped(about.system, seen.points.at(slice(0, FEW)))  # refuses NaN before more are made
    y = outputs(about.system, seen.points)
    usual = torch.cat([outputs(about.system, given.points), y])
    far, left = _outlying(y, usual), list[Finding]()
    if bool(far.any()):
        text = (
            f"{int(far.sum())} of {len(seen)} states that rollouts reached are not examined, the "
            f"first at step {int(seen.step[far].min())}: their outputs lie over {_OUTLYING:,.0f} "
            f"interquartile ranges from the others', as where a rollout runs off."
        )
        left.append(Finding("ran off", "note", text))
        seen = seen.at((~far).nonzero().flatten())
    ways = {"random": shifted, "limits": limits, "kinks": _pushed}
    more = [way(drawn, seen, max(int(_SHARES[name] * n), 1)) for name, way in ways.items()]
    kept = []
    for part in more:
        with suppress(InputError):  # some systems refuse what no rollout reaches
            if len(part):
                outputs(about.system, part.points)
                kept.append(part)
    taken = pooled([given, thinned(seen, rolled - sum(map(len, kept))), *kept])
    inside = (~_outlying(outputs(about.system, taken.points), usual)).nonzero().flatten()
    return taken.at(inside), loss, off, left


def _outlying(y: Tensor, usual: Tensor) -> Tensor:
    """bool [N], outputs far beyond the usual ones, whose rounding would hide wrong entries where
    states are usual."""
    low, middle, high = usual.nanquantile(y.new_tensor([0.25, 0.5, 0.75]), dim=0)
    far = ((y - middle).abs() > _OUTLYING * (high - low)) & (high > low) & torch.isfinite(y)
    found: Tensor = far.any(1)
    return found


_BLOCK = "B"  # ∂s′/∂a, which is ∂y/∂x
_WORDS = (
    (f" {OTHER_BOUNDS}", ""), ("states and actions", "inputs"), ("∂s′/∂a", "∂y/∂x"),
    ("the step", "the function"), ("The step", "The function"), ("′", ""),
)  # fmt: skip


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
    found = certify(task, states, x, samples=len(x), seed=seed, fail_above=fail_above, **more)
    return replace(
        found,
        findings=tuple(_worded(each) for each in found.findings if each.block in (_BLOCK, None)),
        rows=tuple({**row, "block": "y"} for row in found.rows if row["block"] == _BLOCK),
    )


def _worded(finding: Finding) -> Finding:
    text = finding.sentence
    for old, new in _WORDS:
        text = text.replace(old, new)
    return replace(finding, sentence=text, block="y" if finding.block else None)
