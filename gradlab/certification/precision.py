"""Derivatives in single precision against those in double precision, where a system has both."""

from __future__ import annotations

import numpy as np
import torch

from gradlab.certification import sentences
from gradlab.certification.blocks import BLOCKS, Names
from gradlab.certification.certification import Finding
from gradlab.certification.comparison import Units
from gradlab.certification.derivatives import Derivative
from gradlab.certification.evaluation import Points, evenly
from gradlab.errors import InputError
from gradlab.systems.system import System

LIMIT = 1e-2  # 95th percentile of the relative error
STATES = 256


def in_single_precision(
    system: System, derivative: Derivative, points: Points, names: Names, units: Units
) -> tuple[list[Finding], dict[str, float]]:
    """Blocks that float32 spoils, and the 95th percentile of the relative error of each.

    Raises:
        InputError, RuntimeError: the system cannot compute in float32.
    """
    rows = evenly(len(points), STATES)
    few = points.at(rows)
    exact = derivative(system, Points(few.z.float().to(few.z), few.noise))
    short = derivative(system, few.float()).to(exact)
    findings, errors = [], {}
    for block in BLOCKS:
        i, j = names.block(block)
        scale = units.z[j] / units.y[i, None]
        gap, size = ((x[:, i, j] * scale).flatten(1).norm(dim=1) for x in (short - exact, exact))
        usual = size.nan_to_num().square().mean().sqrt()
        relative = (gap / torch.maximum(size, 1e-3 * usual).clamp_min(1e-300)).nan_to_num(nan=1.0)
        errors[block] = float(np.quantile(relative.numpy(), 0.95))
        if errors[block] > LIMIT:
            text = sentences.single_precision(block, errors[block])
            findings.append(
                Finding("single precision", block, None, None, None, errors[block], None,
                        "rough", text)
            )  # fmt: skip
    return findings, errors


def tried(
    system: System, derivative: Derivative, points: Points, names: Names, units: Units
) -> tuple[list[Finding], dict[str, float] | str]:
    """The same, or why it is not possible."""
    try:
        return in_single_precision(system, derivative, points, names, units)
    except (RuntimeError, TypeError, InputError) as error:
        return [], f"not supported: {str(error).splitlines()[0][:90]}"
