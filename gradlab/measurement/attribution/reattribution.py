"""The substitutions of a saved run that kept none, made again from its task, policy and critic.

Only what substitutions need is computed: starts and noise follow from the seed, the length of the
truth and the horizons of smallest error are in the file.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from gradlab import provenance
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting
from gradlab.measurement.attribution.attribution import World, attributed
from gradlab.measurement.chosen import estimators_at
from gradlab.measurement.laws import narrowed
from gradlab.measurement.problem import judged_at
from gradlab.networks.critics import CriticLike, as_critic
from gradlab.networks.interface import double_copy
from gradlab.progress import Progress, silent
from gradlab.runs.profile import Profile
from gradlab.runs.trimmed_starts import trimmed_share
from gradlab.tasks import Task
from gradlab.user_code.grad_mode import differentiating


@differentiating
def attributed_again(
    profile: Profile,
    task: Task,
    policy: nn.Module,
    critic: CriticLike,
    *,
    progress: Progress = silent,
) -> Profile:
    """The profile as `measure(task, policy, critic, attribute=True)` would have kept it.

    Args:
        task, policy, critic: those that were measured, with the default estimators and starts.

    Raises:
        InputError: they are others, or the run measured estimators or starts of the user's own.
    """
    config = profile.config
    if "trim_starts" not in task.parameters:
        task = narrowed(task, trimmed_share(config), config["starts"])
    policy, critic = double_copy("policy", policy), as_critic(critic)
    kind = config.get("truth", "matched")
    chosen = estimators_at(
        task, critic, None, config["horizon"], every=kind == "objective",
        also=config.get("also", ()),
    )  # fmt: skip
    begin = judged_at(
        task, policy, config["starts"], config.get("law", "start"), kind,
        config["termination"], config["seed"],
    )  # fmt: skip
    now = {
        "policy_hash": provenance.network_hash(policy),
        "critic_hash": provenance.network_hash(critic),
        "starts_hash": provenance.tensors_hash(begin.states, begin.weight, begin.group),
    }
    other = [name for name, value in now.items() if config.get(name, value) != value]
    if other or set(profile.estimators) != set(chosen) or config.get("entropy"):
        what = " and ".join(name.split("_")[0] for name in other) or "estimators"
        raise InputError(
            f"the run measured another {what}, so its substitutions cannot be made again: measure "
            f"with attribute=True"
        )
    setting = Setting(
        task.simulator, policy, begin, config["discount"], config["horizon"],
        config["termination"], config["seed"],
    )  # fmt: skip
    world = World(task, setting, chosen, None)
    return replace(profile, attribution=attributed(profile, world, progress))
