"""Many sets of estimators against one truth: the truth is made once, and everything is paired.

    truth = shared_truth(task, policy, starts=256, horizon=15)
    plain, normalised = truth.profile({"model": …}), truth.profile({"model": …})

Same starts, same noise streams, same truth as `measure` with the same seed gives; without the
checks, bounds and kernels that a single measurement adds, which cost more than its moments.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from gradlab import provenance
from gradlab.data.path import Path
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts
from gradlab.measurement.assembly import assembled, configuration, truth_values
from gradlab.measurement.moments.inner_products import estimator_moments
from gradlab.measurement.problem import check_arguments, check_networks, estimators_at, starts_of
from gradlab.networks.interface import double_copy
from gradlab.progress import Progress, silent
from gradlab.runs.profile import Profile
from gradlab.tasks import Task
from gradlab.truth.truth import Truth, matched_truth
from gradlab.user_code.grad_mode import differentiating


@dataclass(frozen=True, eq=False)
class SharedTruth:
    """The matched truth of gradients with θ in the first action, for one policy and its starts.

    Attributes:
        policy: a float64 copy.
        horizon, batch, termination, seed: as in `measure`.
        reference: the truth itself.
        law: "start", or "given" for states that the caller drew (see `gradlab.measurement.laws`).
    """

    task: Task
    policy: nn.Module
    begin: Starts
    reference: Truth
    horizon: int
    batch: int
    termination: str
    seed: int
    law: str

    @property
    def setting(self) -> Setting:
        """Where gradients are taken."""
        task = self.task
        return Setting(
            task.simulator, self.policy, self.begin, task.discount, self.horizon,
            self.termination, self.seed,
        )  # fmt: skip

    def profile(
        self,
        estimators: Mapping[str, Estimator],
        *,
        kernels: bool = False,
        command: str = "",
        progress: Progress = silent,
    ) -> Profile:
        """Moments of each estimator at every horizon, as `measure` has them.

        Args:
            kernels: keep inner products between cells, too, which weights of mixtures need.

        Raises:
            InputError: there is none, or one is no `Estimator`.
        """
        begun = time.monotonic()
        chosen = estimators_at(self.task, None, estimators, self.horizon)
        measured = estimator_moments(chosen, self.setting, self.reference, progress)
        config = configuration(
            self.task, self.policy, None, self.begin, self.horizon, self.batch, "matched",
            self.termination, self.seed, command,
        )  # fmt: skip
        config |= {
            "law": self.law,
            "actions": {name: each.actions for name, each in chosen.items()},
        }
        environment = provenance.environment() | {
            "precision": "float64",
            "wall_seconds": f"{time.monotonic() - begun:.1f}",
        }
        truth = truth_values(self.reference, "matched")
        found = assembled(measured.cells, self.horizon, self.batch, config, environment, truth)
        return replace(found, kernels=measured.kernels) if kernels else found


@differentiating
def shared_truth(
    task: Task,
    policy: nn.Module,
    starts: int | Tensor | Path = 256,
    horizon: int | None = None,
    batch: int = 256,
    termination: str = "ignore",
    seed: int = 0,
    *,
    check: bool = True,
    progress: Progress = silent,
) -> SharedTruth:
    """The truth for `policy` at the task's starts, or at given states; arguments as in `measure`.

    Args:
        check: False: without the comparison with finite differences (`matched_truth`).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    H = task.horizon if horizon is None else horizon
    check_arguments(H, starts if isinstance(starts, int) else 4, batch, termination)
    check_networks(task, policy, None)
    policy, begin = double_copy("policy", policy), starts_of(task, starts, seed)
    reference = matched_truth(
        Setting(
            task.simulator, policy, begin, task.discount, H, termination=termination, seed=seed
        ),
        kinds=["first"],
        check=check,
        progress=progress,
    )
    law = "start" if isinstance(starts, int) else "given"
    return SharedTruth(task, policy, begin, reference, H, batch, termination, seed, law)
