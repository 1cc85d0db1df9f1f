"""Races of planted candidates on a linear-quadratic world, against closed-form returns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import Estimator, Tail, race, tasks
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.measurement.update import Update
from gradlab.tools.race.compute import Stopped, state_file
from gradlab.tools.race.page import screen
from gradlab.tools.race.result import ALONE, load
from gradlab.truth.lqr import ExactCritic, lqr_return
from gradlab.wording import signed, two

W = torch.tensor([[-0.3, -0.5]], dtype=torch.float64)
LENGTH, UPDATES = 30, 24
RULE = Update("sgd", 2e-3, refit=8)


def task_of():
    A, B = [[1.0, 0.1], [0.2, 0.9]], [[0.02], [0.5]]
    eye = torch.eye(2, dtype=torch.float64)
    return tasks.linear_quadratic(
        A=torch.tensor(A).double(), B=torch.tensor(B).double(), Q=eye, R=0.1 * eye[:1, :1],
        noise_covariance=0.0 * eye, start_mean=torch.ones(2).double(), start_covariance=0.01 * eye,
        discount=0.9,
    )  # fmt: skip


def policy_of():
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = W.clone()
    return policy


class Turned(ExactCritic):
    """A critic that points the other way."""

    def forward(self, s, a):
        return -0.1 * super().forward(s, a)


def exact(policy, critic, fit):
    return type(critic)(TASK.simulator, policy.weight.detach(), TASK.discount)


TASK = task_of()
SIM = TASK.simulator
EXACT = ExactCritic(SIM, W, TASK.discount)
CANDIDATES = {
    "right": Estimator(SIM, None, "first", Tail(0, EXACT, TASK.discount)),
    "short": Estimator(SIM, SIM, "all", Tail(1, None, TASK.discount)),
    "wrong": Estimator(SIM, None, "first", Tail(0, Turned(SIM, W, TASK.discount), TASK.discount)),
}


def raced(candidates=None, **changed):
    options = {
        "updates": UPDATES, "update": RULE, "batch": 64, "starts": 16, "length": LENGTH,
        "refit_critic": exact,
    } | changed  # fmt: skip
    return race(TASK, policy_of(), EXACT, candidates or CANDIDATES, **options)


@pytest.fixture(scope="module")
def found():
    return raced()


def moment(seed=0, n=16):
    states = TASK.starts(n, stream(seed, "race returns")).double()
    return states.T @ states / n


def test_the_planted_best_wins_and_the_wrong_sign_is_dropped(found):
    best = found.results.best
    assert best.cell == ("right", 0) and best.updates == UPDATES and not found.results.hold
    assert found.may_be_best() == ("right",) and found.names == ("right", "short", "wrong")
    assert found.dropped == (0, 0, 12)
    assert found.results.holds(("wrong", 0)) is None
    before = signed(two(found.results.before.mean()))
    start = f"Follow right for 24 updates or more: the return of {before} rises by "
    assert found.recommendation.startswith(start)
    assert "wrong" in str(found) and "dropped after 12" in str(found)


def test_candidates_with_horizons_are_told_apart_and_all_are_explained(found):
    cells = (("model_all:0", 0), ("data", 0), ("model_all:20", 20))
    race = replace(found, results=replace(found.results, cells=cells))
    assert [race.called(name) for name in race.names] == [
        "critic alone at the starts", "data (critic only)", "model, BPTT at h = 20",
    ]  # fmt: skip
    assert "Follow critic alone at the starts for" in str(race)  # as measurements call it
    told = [each.text for each in screen(race).rest[:3]]
    assert all(map(str.startswith, told, map(race.called, race.names)))
    first = replace(race, results=replace(found.results, cells=(("model:0", 0), *cells[1:])))
    assert "at the starts" not in str(first)  # θ in the first action alone


def test_bands_hold_the_closed_form_return_of_the_policies_that_were_followed(found):
    """SGD along the exact policy gradient of Σγᵗ, written out: W += rate · 2 M_T Σ."""
    before = lqr_return(SIM, W, moment(), TASK.discount, LENGTH)
    state = TASK.starts(1024, torch.Generator().manual_seed(5)).double()
    w = W.clone()
    for _ in range(UPDATES):
        critic, s, total = ExactCritic(SIM, w, TASK.discount), state, torch.zeros(1, 2).double()
        for t in range(LENGTH):
            a = (s @ w.T).requires_grad_()
            (q_a,) = torch.autograd.grad(critic(s, a).sum(), a)
            total += TASK.discount**t * q_a.T @ s / len(s)
            s = SIM.step(s, s @ w.T).state
        w = w + RULE.rate * total
    expected = float(lqr_return(SIM, w, moment(), TASK.discount, LENGTH) - before)
    after = found.results.after(("right", 0), UPDATES)
    assert after.value == pytest.approx(expected, rel=0.1) and after.low < expected < after.high


def test_a_seed_repeats_a_race_and_a_file_keeps_it(found, tmp_path):
    again = raced()
    assert np.array_equal(again.results.change, found.results.change, equal_nan=True)
    kept = load(found.save(tmp_path / "race.h5"))
    assert kept.table().equals(found.table()) and kept.dropped == found.dropped
    assert kept.recommendation == found.recommendation and str(kept) == str(found)
    columns = ["candidate", "horizon", "updates", "value", "ci_low", "ci_high"]
    assert list(found.table())[:6] == columns


def test_a_race_that_was_stopped_goes_on_bit_for_bit(found, tmp_path):
    path, calls = tmp_path / "race.h5", []

    def stopping(stage, done, total):
        calls.append(done)
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match="resume") as stop:
        raced(output=path, progress=stopping)
    partial = load(path)
    assert "interrupted" in partial.config and partial.updates == 12
    assert stop.value.race.updates == 12 and state_file(path).is_file()
    with pytest.raises(InputError, match="another race"):
        raced(output=path, resume=True, seed=1)
    assert calls[-1] == 13
    resumed = raced(output=path, resume=True)
    kept, best = policy_of(), resumed.results.best
    kept.load_state_dict(torch.load(path.with_name("race.best.pt"), weights_only=True))
    assert resumed.notes["best policy"].startswith(f"after {best.updates} updates along right, in ")
    after, before = (
        float(lqr_return(SIM, each.weight.detach(), moment(), TASK.discount, LENGTH))
        for each in (kept, policy_of())
    )
    assert after - before == pytest.approx(best.gain.value, rel=1e-6)
    assert np.array_equal(resumed.results.change, found.results.change, equal_nan=True)
    assert "interrupted" not in load(path).config
    with pytest.raises(InputError, match="exists"):
        raced(output=path)


def test_losses_with_rules_of_their_own_race_against_mixtures():
    def towards_zero(policy, states):
        return (policy(states) ** 2).mean()

    def value(policy, states):
        return -EXACT(states, policy(states)).mean()

    half = Tail(0, EXACT, TASK.discount)
    candidates = {
        "mixture": ((0.5, CANDIDATES["short"]), (0.5, Estimator(SIM, None, "first", half))),
        "value": (value, lambda parameters: torch.optim.SGD(parameters, lr=0.02)),
        "zero": towards_zero,
    }
    found = raced(candidates, refit_critic=False)
    assert [cell[1] for cell in found.results.cells] == [ALONE] * 3
    assert found.results.holds(("value", ALONE)) and found.results.holds(("zero", ALONE)) is None


class Bouncing:
    """A point that an action pushes; a Gymnasium-like environment."""

    def __init__(self):
        self.x = np.zeros(1)

    def reset(self, seed=None):
        self.x = np.random.default_rng(seed).uniform(1.0, 2.0, 1)
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x = 0.9 * self.x + 0.2 * action
        return self.x.astype(np.float32), -float(self.x[0] ** 2), False, False, {}


class Unseeded(Bouncing):
    def reset(self):
        return super().reset(None)


PUSH = {
    "down": lambda policy, states: (0.9 * states + 0.2 * policy(states)).square().mean(),
    "up": lambda policy, states: -policy(states).mean(),
}


@pytest.mark.slow
@pytest.mark.parametrize("environment", [Bouncing, Unseeded])
def test_any_environment_with_reset_and_step_will_do(environment):
    found = race(
        environment(), nn.Linear(1, 1), candidates=PUSH, updates=30, batch=16, length=10,
        update=Update("sgd", 0.05, refit=4),
    )  # fmt: skip
    assert found.results.best.cell[0] == "down" and not found.results.hold
    paired = environment is Bouncing
    assert found.results.judges == (32 if paired else 128)
    assert ("pairing" in found.notes) is not paired


def test_what_cannot_be_raced_is_refused():
    wanted = {
        "at least two": {"candidates": {"right": CANDIDATES["right"]}},
        "updates": {"updates": 0},
        "unknown": {"candidates": ["data", "modell:5"]},
        "expected an Estimator": {"candidates": {"a": 3, "b": 4}},
        "without an output": {"resume": True},
        "length is a Tensor": {"length": torch.ones(2, 2)},
        "refit_critic is a Tensor": {"refit_critic": torch.ones(2, 2)},
    }
    for words, options in wanted.items():
        with pytest.raises(InputError, match=words):
            raced(**options)
    with pytest.raises(InputError, match="no rate"):
        race(Bouncing(), nn.Linear(1, 1), candidates=PUSH)
    with pytest.raises(InputError, match="need a Task"):
        race(Bouncing(), nn.Linear(1, 1), candidates=CANDIDATES, update=RULE)
    with pytest.raises(InputError, match="without reset"):
        race(object(), nn.Linear(1, 1), candidates=PUSH, update=RULE)


def test_default_candidates_are_the_critic_and_the_model_or_the_simulator_that_it_is():
    found = race(
        TASK, policy_of(), EXACT, updates=2, update=RULE, batch=8, starts=4, length=5,
    )  # fmt: skip
    H = TASK.horizon
    assert found.results.cells == (
        ("data", 0), ("model_all:1", 1), ("model_all:5", 5), (f"model_all:{H}", H),
    )  # fmt: skip
    assert found.notes["critic"].startswith("has no parameters")
    found = race(
        replace(TASK, prior=SIM), policy_of(), EXACT, None, 1, update=RULE, batch=8, starts=4,
        horizon=1, refit_critic=False,
    )  # fmt: skip
    assert found.names == ("data", "true_dynamics_all:1")
    assert "within 1 update no" in str(found) or "for 1 update" in str(found)
