"""The price of a measurement on the task, before it is made.

    price = 1.5 · T · (linearized + checked) + 0.05 s

linearized: a step of the simulator and its Jacobians at the starts; checked: a step of the copies
that the truth's check rolls out side by side; T: how long the truth's chains are. They converge
after 100 to 1000 steps, which the discount does not tell: the first steps are made, and where these
do not suffice the longest there may be are reckoned with. A measurement that has been made is the
price of the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradlab.data.noise import child
from gradlab.gradients.starts import Starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.problem import starts_of
from gradlab.networks.interface import act
from gradlab.probe.budget import Clock
from gradlab.probe.isolation import doubled, undisturbed
from gradlab.probe.measured import STARTS
from gradlab.probe.task_question import Question
from gradlab.runs.probe.measured_columns import STEPS
from gradlab.systems.system import linearize_running, step_running
from gradlab.truth.oracles import AT_MOST, unroll_first_action

CHECKED = 32  # perturbed policies of a check
TRIED = 300  # steps of the chains at most
MARGIN = 1.5  # for estimators, choice and the fresh path: 1.0 to 1.4 measured
FIXED = 0.05  # seconds of copies and statistics
_REPEATS = 3


def trial_price(question: Question, policy: nn.Module, clock: Clock = time.perf_counter) -> float:
    """Seconds that finding the first price will take, at the cost of a few steps."""
    steps = STEPS if question.critic is None else TRIED
    with undisturbed(), torch.no_grad():
        copy, begin, _ = _asked(question, policy)
        return FIXED + MARGIN * steps * _linearized(question, copy, begin, clock)


def first_price(question: Question, policy: nn.Module, clock: Clock = time.perf_counter) -> float:
    """Seconds that a measurement will take, truth and check included."""
    task = question.task
    with undisturbed():
        copy, begin, noise = _asked(question, policy)
        linearized = _linearized(question, copy, begin, clock)
        if question.critic is None:
            return FIXED + MARGIN * STEPS * linearized
        begun = clock()
        unrolled = unroll_first_action(
            Setting(task.simulator, copy, begin, task.discount, seed=question.seed),
            at_most=TRIED,
            at_least=question.horizon,
        )
        tried = clock() - begun
        states, noise = begin.states.repeat(CHECKED, 1), noise.repeat(CHECKED, 1)

        def step() -> None:
            with torch.no_grad():
                step_running(task.simulator, states, act(copy, states, noise), None)

        # Fewer steps than it might have made: they suffice, or it has given up.
        ended = unrolled.converged or unrolled.horizon < TRIED
        factor = 1.0 if ended else AT_MOST / unrolled.horizon
        checked = unrolled.horizon * _seconds(step, clock)
        return FIXED + MARGIN * factor * (tried + checked)


def _asked(question: Question, policy: nn.Module) -> tuple[nn.Module, Starts, Tensor]:
    copy = doubled(policy)
    begin = starts_of(question.task, STARTS, child(question.seed, "probe price"))
    return copy, begin, begin.policy_noise(copy, 0, 0)


def _linearized(question: Question, policy: nn.Module, begin: Starts, clock: Clock) -> float:
    simulator = question.task.simulator
    with torch.no_grad():
        action = act(policy, begin.states, begin.policy_noise(policy, 0, 0))

    def work() -> None:
        with torch.no_grad():
            step_running(simulator, begin.states, action, None)
        linearize_running(simulator, begin.states, action, None)

    return _seconds(work, clock)


def _seconds(work: Callable[[], object], clock: Clock) -> float:
    """The shortest of a few times: the first one also loads what is not loaded yet."""
    times = []
    for _ in range(_REPEATS):
        begun = clock()
        work()
        times.append(clock() - begun)
    return min(times)
