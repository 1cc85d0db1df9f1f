"""One truth for many sets of estimators: it is made once, and everything is paired.

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
from gradlab.measurement.arguments import FEWEST, check_arguments, check_networks
from gradlab.measurement.assembly import assembled, configuration, truth_values
from gradlab.measurement.chosen import estimators_at, identify
from gradlab.measurement.moments.inner_products import estimator_moments
from gradlab.measurement.problem import starts_of
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
        setting: where gradients are taken; its policy is a float64 copy.
        reference: the truth itself.
        batch: as in `measure`.
        law: "start", or "given" for states that the caller drew (see `gradlab.measurement.laws`).
    """

    task: Task
    setting: Setting
    reference: Truth
    batch: int
    law: str

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
        begun, horizon = time.monotonic(), self.setting.horizon
        chosen = estimators_at(self.task, None, estimators, horizon)
        measured = estimator_moments(chosen, self.setting, self.reference, progress)
        config = configuration(
            self.task, self.setting, self.setting.policy, None, self.batch, "matched", command,
        )  # fmt: skip
        config |= {
            "law": self.law,
            "actions": {name: estimator.actions for name, estimator in chosen.items()},
        }
        environment = provenance.environment() | {
            "precision": "float64",
            "wall_seconds": f"{time.monotonic() - begun:.1f}",
        }
        truth = truth_values(self.reference, "matched")
        profile = assembled(measured.cells, horizon, self.batch, config, environment, truth)
        profile = replace(profile, identities=identify(chosen, self.task.simulator))
        return replace(profile, kernels=measured.kernels) if kernels else profile


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
    check_arguments(H, starts if isinstance(starts, int) else FEWEST, batch, termination)
    check_networks(task, policy, None)
    policy, begin = double_copy("policy", policy), starts_of(task, starts, seed)
    setting = Setting(task.simulator, policy, begin, task.discount, H, termination, seed)
    reference = matched_truth(setting, kinds=["first"], check=check, progress=progress)
    law = "start" if isinstance(starts, int) else "given"
    return SharedTruth(task, setting, reference, batch, law)
