"""`gradlab plan TASK`: is planning in a model worth it, by gradients or by sampling?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document, model_option
from gradlab.cli.terminal.answer import of_screen
from gradlab.cli.terminal.progress_bars import bars
from gradlab.cli.terminal.streams import undisturbed


@dataclass(frozen=True)
class PlanCommand:
    """Is planning in your model worth it, and by gradients, CEM or MPPI?

    Every planner has equally many roll-outs of the model. Its plans are executed in the simulator
    and compared with the policy's own actions from the same starts. One step along the gradient of
    the plan's score is tried, too.

        gradlab plan path_tracking --horizons 5 10
        gradlab plan Hopper-v5 --model model.safetensors --policy policy.safetensors
    """

    task: arguments.TaskName
    settings: arguments.Settings = ()
    model: arguments.ModelFile = None
    policy: arguments.PolicyFile = None
    critic: arguments.CriticFile = None
    horizons: Annotated[tuple[int, ...], arg(metavar="H")] = ()
    """Steps of a plan. Default: 1, 2, 5, 10, … up to the task's horizon."""
    planners: tuple[Literal["gradient", "projected", "cem", "mppi"], ...] = (
        "gradient", "projected", "cem", "mppi",
    )  # fmt: skip
    """Gradient descent (Adam) on the actions, the same within their limits, the cross-entropy
    method, and weighted samples."""
    rollouts: Annotated[int, arg(metavar="N")] = 512
    """Roll-outs of the model for one plan; a gradient counts 3."""
    steps: Annotated[int | None, arg(metavar="T")] = None
    """Steps of an episode that are planned. Default: those of the longest plan."""
    replan: Annotated[int | None, arg(metavar="K")] = None
    """Steps of a plan that are executed before the next one is made. Default: all."""
    starts: int = 32
    """Starts of the episodes, the same for all."""
    no_policy: bool = False
    """Plan without policy and critic; unplanned actions are 0."""
    seed: arguments.Seed = 0
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: recommendation and table."""

    def run(self, command: str) -> Document:
        """The first screen, and the table of gains."""
        with undisturbed():
            from gradlab.fitting.critics import fit_critic
            from gradlab.fitting.policies import stabilising_policy
            from gradlab.tools.planning.compute import compare_planners, model_of

        task = arguments.named_task(self.task, self.settings)
        given = arguments.networks(policy=self.policy, critic=self.critic)
        model = model_option(task, self.model, None)
        model_of(task, model)  # before anything is fitted
        with bars() as progress:
            policy, critic = given.get("policy"), given.get("critic")
            if not self.no_policy:
                if policy is None:
                    policy = stabilising_policy(task, seed=self.seed, progress=progress)
                if critic is None:
                    critic = fit_critic(task, policy, seed=self.seed, progress=progress)
            found = compare_planners(
                task, policy, critic, model=model, horizons=self.horizons or None,
                planners=self.planners, rollouts=self.rollouts, steps=self.steps,
                replan=self.replan, starts=self.starts, seed=self.seed, progress=progress,
            )  # fmt: skip
        table = found.table().to_dict("records")
        return of_screen(found.screen()) | {"table": table, "config": dict(found.config)}
