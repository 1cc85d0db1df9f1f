"""A task: simulator, prior model, start law, discount and horizon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.system import System, check_system
from gradlab.tasks.start_law import start_law

BETWEEN = "a number between 0 and 1"
Starts = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Task:
    """What a gradient is measured on.

    Attributes:
        simulator: the truth.
        prior: a model of it, in the same state and action, or None.
        starts: (n, generator) -> [n, ds], the start law; called so, it gives float64. A function
            (n) of the user's is seeded from the generator (see `tasks.start_law`).
        discount: γ in (0, 1).
        horizon: largest horizon measured by default.
        state_names, action_names: one name per coordinate, with its unit where it has one.
        observation_scale: fixed factors [ds] of the first layer of policy and critic.
        reference_state: [ds], where the prior's Riccati gain is taken; None: zeros.
        exploration: standard deviation per action of exploratory noise.
        action_limit: largest |action| per action, beyond which the simulator clips.
        alive: next_state [N, ds] -> bool [N], the termination that a learned model takes over;
            None: no state is terminal.
        parameters: how the task was built, as JSON.
    """

    name: str
    simulator: System
    prior: System | None
    starts: Starts
    discount: float
    horizon: int
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    observation_scale: tuple[float, ...] | None = None
    reference_state: tuple[float, ...] | None = None
    exploration: tuple[float, ...] | None = None
    action_limit: tuple[float, ...] | None = None
    alive: Callable[[Tensor], Tensor] | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validation.instance("name", self.name, str, "text")
        check_system("simulator", self.simulator)
        if self.prior is not None:
            check_system("prior", self.prior)
        ds, da = self.simulator.state_dim, self.simulator.action_dim
        if self.prior is not None:
            for name, width in (("state_dim", ds), ("action_dim", da)):
                if getattr(self.prior, name) != width:
                    got = f"{name} {getattr(self.prior, name)}"
                    raise InputError(f"prior has {got}, but the simulator has {width}")
        # Settings may come from a command line: types are not certain.
        if not 0 < validation.number("discount", self.discount, BETWEEN) < 1:
            raise InputError(f"discount is {self.discount!r}, expected {BETWEEN}")
        validation.whole("horizon", self.horizon)
        if not callable(self.starts):
            got = "None" if self.starts is None else f"a {type(self.starts).__name__}"
            raise InputError(
                f"starts is {got}, expected a function (n, generator) -> [n, {ds}]: what "
                f"a policy visits, and what it earns, depends on the start law"
            )
        object.__setattr__(self, "starts", start_law(self.starts, ds))
        self._check_widths(ds, da)

    def _check_widths(self, ds: int, da: int) -> None:
        widths = {
            "state_names": ds,
            "action_names": da,
            "observation_scale": ds,
            "reference_state": ds,
            "exploration": da,
            "action_limit": da,
        }
        for name, width in widths.items():
            value = getattr(self, name)
            validation.instance(name, value, (tuple, list, type(None)), f"{width} entries, or None")
            if value and len(value) != width:
                raise InputError(f"{name} has {len(value)} entries, expected {width}")
