"""Forty mistakes and two hundred systems without one, each shown to be so by direct means.

Derivatives of a system by two independent ways, written as plainly as can be. `derivatives` are the
system's own: reverse mode through its step where it is differentiable, and its `linearize`.
`differences` are central ones of its forward step at two step sizes.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradlab.systems import System
from gradlab.systems.system import BLOCKS
from gradlab.tasks import Task
from tests.certification.faults import FAULTS
from tests.certification.sound_systems import (
    computed_in_single_precision,
    in_single_precision,
    sound_tasks,
)

Blocks = dict[str, Tensor]
STEP = 1e-5
AGREEMENT = 1e-5  # of two step sizes: elsewhere the function has a kink or a jump
KINK = 1e-2  # between both sides
ROUNDING = 10 * torch.finfo(torch.float64).eps


def visited(task: Task, starts: int = 32, steps: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """States under random actions, of which a third is beyond the limits; with noise."""
    generator = torch.Generator().manual_seed(7)
    system = task.simulator
    limit = torch.tensor(task.action_limit or (1.0,) * system.action_dim, dtype=torch.float64)
    s, rows = task.starts(starts, generator), []
    for _ in range(steps):
        draw = torch.rand(starts, system.action_dim, generator=generator, dtype=torch.float64)
        a = 1.5 * limit * (2 * draw - 1)
        noise = system.sample_noise(starts, generator)
        rows.append((s, a, noise))
        s = system.step(s, a, noise).state.detach()
    s, a, noise = (torch.cat(column) for column in zip(*rows, strict=True))
    finite = torch.isfinite(s).all(1)
    return s[finite], a[finite], noise[finite]


def outputs(system: System, s: Tensor, a: Tensor, noise: Tensor) -> Tensor:
    """[s', r], [N, ds + 1]."""
    out = system.step(s, a, noise)
    return torch.cat([out.state, out.reward[:, None]], 1)


def blocks(jacobian: Tensor, ds: int) -> Blocks:
    """Of ∂(s', r)/∂(s, a), [N, ds + 1, ds + da]."""
    by_s, by_a = jacobian[:, :, :ds], jacobian[:, :, ds:]
    return {"A": by_s[:, :-1], "B": by_a[:, :-1], "r_s": by_s[:, -1], "r_a": by_a[:, -1]}


def by_reverse_mode(system: System, s: Tensor, a: Tensor, noise: Tensor) -> Blocks:
    s, a = s.clone().requires_grad_(), a.clone().requires_grad_()
    y = outputs(system, s, a, noise) + 0 * (s.sum(1) + a.sum(1))[:, None]
    rows = [
        torch.cat(torch.autograd.grad(y[:, i].sum(), (s, a), retain_graph=True), 1)
        for i in range(y.shape[1])
    ]
    return blocks(torch.stack(rows, 1), s.shape[1])


def by_linearize(system: System, s: Tensor, a: Tensor, noise: Tensor) -> Blocks:
    linear = system.linearize(s, a, noise)
    return {name: getattr(linear, name) for name in BLOCKS}


def by_differences(
    system: System, s: Tensor, a: Tensor, noise: Tensor, step: float
) -> tuple[Blocks, Blocks, Blocks]:
    """Central differences, forward less backward ones, and what rounding makes of the first."""
    ds, columns, bends, roundings = s.shape[1], [], [], []
    with torch.no_grad():
        middle = outputs(system, s, a, noise)
        for unit in torch.eye(ds + a.shape[1], dtype=s.dtype):
            by_s, by_a = step * unit[:ds], step * unit[ds:]
            up = outputs(system, s + by_s, a + by_a, noise)
            down = outputs(system, s - by_s, a - by_a, noise)
            columns.append((up - down) / (2 * step))
            bends.append((up - 2 * middle + down) / step)
            roundings.append(ROUNDING * middle.abs() / step)
    central, bend, rounding = (
        blocks(torch.stack(each, 2), ds) for each in (columns, bends, roundings)
    )
    return central, bend, rounding


def largest_errors(system: System, s: Tensor, a: Tensor, noise: Tensor) -> dict[str, float]:
    """Largest error of each block, relative to it, where its function is smooth; inf: it is not
    finite somewhere.

    Smooth is a block of a state in which two step sizes agree, and so do both sides.
    """
    system.linearize(
        s.roll(1, 0), a.roll(1, 0), noise
    )  # a system that keeps its first call is met later
    coarse, _, _ = by_differences(system, s, a, noise, STEP)
    fine, bend, rounding = by_differences(system, s, a, noise, STEP / 8)
    ways = [by_linearize] + ([by_reverse_mode] if system.differentiable else [])
    worst = dict.fromkeys(BLOCKS, 0.0)
    for way in ways:
        derivative = way(system, s, a, noise)
        for name in BLOCKS:
            error, smooth = _error(derivative[name].detach(), coarse[name], fine[name], bend[name])
            noisy = rounding[name].flatten(1).amax(1) > AGREEMENT * (1 + _size(fine[name]))
            judged = error[(smooth & ~noisy) | (error == torch.inf)].tolist()
            worst[name] = max([worst[name], *judged])
    return worst


def _size(block: Tensor) -> Tensor:
    return block.flatten(1).abs().amax(1)


def _error(derivative: Tensor, coarse: Tensor, fine: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """Relative error [N], inf where it is not finite, and where the function is smooth [N]."""
    size = _size(fine)
    gap, bent = _size(coarse - fine), _size(bend)
    smooth = (gap < AGREEMENT * (1 + size)) & (bent < KINK * (1 + size))
    error = _size(derivative - fine) / (size + AGREEMENT)
    return error.nan_to_num(nan=torch.inf), smooth


EXACT = [fault for fault in FAULTS if fault.blocks and fault.codes != ("single_precision",)]
BEHAVIOUR = {fault.name: fault for fault in FAULTS if not fault.blocks}
THRESHOLD = 1e-3


def test_forty_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == 40


@pytest.mark.parametrize("fault", EXACT, ids=lambda fault: fault.name)
def test_fault_breaks_the_blocks_that_it_names_and_no_other(fault):
    task = fault.task()
    errors = largest_errors(task.simulator, *visited(task))
    assert {name for name, error in errors.items() if error > THRESHOLD} == set(fault.blocks)


def test_cancellation_breaks_the_reward_in_single_precision_alone():
    (fault,) = [fault for fault in FAULTS if fault.codes == ("single_precision",)]
    task = fault.task()
    double = visited(task)
    wide = by_linearize(task.simulator, *double)
    narrow = by_linearize(task.simulator, *(x.float() for x in double))
    errors = {name: float((narrow[name].double() - wide[name]).abs().max()) for name in wide}
    assert {name for name, error in errors.items() if error > 1e-2} == set(fault.blocks)
    exact = -2 * double[0][:, 0]
    torch.testing.assert_close(wide["r_s"][:, 0], exact, atol=1e-8, rtol=1e-8)


def _repeated(task, reseeded):
    """Whether the same call gives the same bits after another call."""
    inputs = visited(task)
    torch.manual_seed(0)
    first = outputs(task.simulator, *inputs)
    outputs(task.simulator, *(x.flip(0) for x in inputs))
    if reseeded:
        torch.manual_seed(0)
    return torch.equal(first, outputs(task.simulator, *inputs))


@pytest.mark.parametrize("name", ("stale buffer", "parameter buffer mutated"))
def test_stale_systems_depend_on_earlier_calls(name):
    assert not _repeated(BEHAVIOUR[name].task(), reseeded=True)


def test_hidden_randomness_depends_on_the_seed_alone():
    assert not _repeated(BEHAVIOUR["hidden randomness"].task(), reseeded=False)
    assert _repeated(BEHAVIOUR["hidden randomness"].task(), reseeded=True)


@pytest.mark.parametrize("name", ("batch mean leaks across rows", "batch-dependent scale"))
def test_mixed_rows_depend_on_their_batch(name):
    task = BEHAVIOUR[name].task()
    s, a, noise = visited(task)
    alone = outputs(task.simulator, s[:1], a[:1], noise[:1])
    assert (alone - outputs(task.simulator, s, a, noise)[:1]).abs().max() > THRESHOLD
    assert _repeated(task, reseeded=False)


SOUND = dict(sound_tasks())
DOUBLE = [name for name in SOUND if "float32" not in name]
SINGLE = dict(computed_in_single_precision())


def test_there_are_two_hundred():
    assert len(SOUND) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBLE)
def test_derivative_is_that_of_the_step(name):
    task = SOUND[name]
    errors = largest_errors(task.simulator, *visited(task))
    assert max(errors.values()) < 2e-3, errors


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_derivative_in_single_precision_is_that_in_double(name):
    task = SINGLE[name]
    inputs = [x.float().double() for x in visited(task)]
    exact = by_linearize(task.simulator, *inputs)
    rounded = by_linearize(in_single_precision(task).simulator, *inputs)
    for block, wanted in exact.items():
        size = wanted.flatten(1).abs().amax(1).clamp(min=1e-3)
        error = (rounded[block] - wanted).flatten(1).abs().amax(1) / size
        # The two precisions may take different sides of a kink inside the step.
        assert torch.quantile(error, 0.98) < 1e-3, block
