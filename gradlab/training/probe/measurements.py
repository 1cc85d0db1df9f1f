"""What is measured of one seed at a time while it trains, in turn, as the budget allows.

The instrument is `gradlab.probe.measured`, on the policy, the critic and the model of the seed as
they are: the task's prior, or the ensemble that the seed has learned last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

from gradlab.probe.budget import Budget
from gradlab.probe.measured import measured
from gradlab.probe.sampler import FirstPrice
from gradlab.probe.task_question import Past, Question
from gradlab.training.parts.critics import Q
from gradlab.training.state import Run


@final
class SeedMeasurements:
    """Whose turn it is, what a measurement costs, and what each seed's earlier ones have seen."""

    def __init__(self, run: Run, budget: Budget) -> None:
        self.run, self.budget = run, budget
        self.seconds = 0.0
        self._prices: dict[bool, float] = {}  # by whether the truth is checked
        self._first = FirstPrice(budget)
        self._past = [Past()] * run.settings.seeds
        self._turn = 0
        self._last = [float("-inf")] * run.settings.seeds  # when each one's last one ended

    def row(self) -> tuple[int, dict[str, Any]] | None:
        """A seed's place and its row, where there is time for one."""
        member = self._next()
        if member is None or not self._affordable(member):
            return None
        run, self._turn = self.run, member + 1
        checked = self._past[member].checks
        with self.budget.paying() as price:
            row, self._past[member] = measured(
                self._question(member), run.learner.policy_of(member), run.algorithm.batch,
                run.iteration, self._past[member],
            )  # fmt: skip
        self._prices[checked] = self.seconds = price[0]
        self._last[member] = self.budget.clock()
        return member, row

    def _next(self) -> int | None:
        """The next seed that is not lost."""
        lost, seeds = self.run.lost, len(self._past)
        turns = [(self._turn + k) % seeds for k in range(seeds)]
        return next((member for member in turns if not lost[member]), None)

    def _affordable(self, member: int) -> bool:
        """May one be made now? Finds the price first, when the budget allows that."""
        checked = self._past[member].checks
        if not self._prices:
            price = self._first.found(self._question(member), self.run.learner.policy_of(member))
            if price is None:
                return False
            self._prices[checked] = price
        # A seed's first one is checked, and no other costs more.
        price = self._prices.get(checked, max(self._prices.values()))
        return self.budget.rested(price, self._last[member]) and self.budget.allows(price)

    def _question(self, member: int) -> Question:
        run = self.run
        task = run.task
        if run.dynamics is not None and run.dynamics.fitted:
            task = replace(task, prior=run.dynamics.system_of(member))
        # The instrument needs values of actions: without them it measures the task and the model.
        valued = run.algorithm.critics > 0 and run.algorithm.target.kind == Q
        critic = run.learner.critic_of(member) if valued else None
        return Question(task, critic, run.learner.seeds[member])
