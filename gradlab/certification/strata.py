"""Where a state is: free, in contact, at an onset, on a limit, or saturated.

onset       a kink or a jump of the step within the stencil of some coordinate
saturation  some input has no effect at all there, which it has elsewhere: beyond a clip
limit       an action on its limit, or a joint beyond its own
contact     where the system has `contacts(state) -> bool [N]`
free        none of these
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.certification.reference import Reference
from gradlab.certification.sampling import Samples
from gradlab.systems.system import System

STRATA = ("free", "contact", "onset", "limit", "saturation")
ROUNDING = 1e-9  # of a column's size elsewhere, below which it is 0


def strata(
    system: System, samples: Samples, found: Reference, action_limit: Tensor | None
) -> Tensor:
    """Index into `STRATA` of every point, [N]; the last that holds counts."""
    ds, z = system.state_dim, samples.points.z
    label = torch.zeros(len(z), dtype=torch.long)
    contacts: Callable[[Tensor], Tensor] | None = getattr(system, "contacts", None)
    if contacts is not None:
        label[contacts(z[:, :ds]).cpu()] = STRATA.index("contact")
    label[_limited(system, z, action_limit)] = STRATA.index("limit")
    label[_saturated(found)] = STRATA.index("saturation")
    label[found.kink.any(1) | samples.onset] = STRATA.index("onset")
    return label


def _limited(system: System, z: Tensor, action_limit: Tensor | None) -> Tensor:
    ds = system.state_dim
    on = torch.zeros(len(z), dtype=torch.bool)
    if action_limit is not None:
        on |= (z[:, ds:].abs() == action_limit).any(1)
    beyond: Callable[[Tensor], Tensor] | None = getattr(system, "beyond_limits", None)
    return on if beyond is None else on | beyond(z[:, :ds]).cpu()


def _saturated(found: Reference) -> Tensor:
    """Points with a column that is 0 there, and is not at a tenth of all points."""
    size = found.D.abs().nan_to_num().amax(1)
    usual = size.quantile(0.9, dim=0)
    return ((size <= ROUNDING * usual) & (usual > 0)).any(1)
