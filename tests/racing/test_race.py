"""Races of planted candidates on a linear-quadratic world, against closed-form returns.

`gradlab race`: a file and a page, what a stop leaves, and how it goes on. Steps between two
policies, against returns in closed form.
"""

import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail, race, tasks
from gradlab.cli.program import main
from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.figures import style
from gradlab.measurement.update import Update
from gradlab.reporting import output
from gradlab.statistics.over_groups import difference_of_means
from gradlab.tools.race.compute import Stopped, state_file
from gradlab.tools.race.result import ALONE, load
from gradlab.wording import signed, two
from tests.linear_quadratic import ExactCritic, lqr_return
from tests.own_files import LQR, OWN
from tests.racing.small_environments import (
    Begun,
    Counting,
    Drawing,
    Keeping,
    Noisy,
    Once,
    Side,
    Sliding,
    gain_of,
)
from tests.racing.small_environments import Unseeded as SeedlessSliding

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
    shown = found.recommendation
    dropped = [(row.subject, row.at) for row in shown.rest if row.code == "race_dropped"]
    assert dropped == [("wrong", "12 updates")] and str(found) == str(shown)
    assert shown.light == "act" and shown.use == "right, for 24 updates or more"
    assert shown.tested.startswith("+") and f"return, from {before}, after 24" in shown.tested


def test_candidates_with_horizons_are_told_apart_and_all_are_explained(found):
    cells = (("model_all:0", 0), ("data", 0), ("model_all:20", 20))
    race = replace(found, results=replace(found.results, cells=cells))
    assert [race.called(name) for name in race.names] == [
        "critic alone at the starts", "data (critic only)", "model, BPTT at h = 20",
    ]  # fmt: skip
    shown = race.recommendation
    assert shown.use.startswith("critic alone at the starts")  # as measurements call it
    assert {each.subject for each in shown.rest} == set(map(race.called, race.names))
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
    assert str(kept) == str(found)
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
    assert "1 update" in str(found)


SMALL = [
    "--candidates", "data", "model_all:2", "--updates", "8", "--lr", "0.01", "--refit", "4",
    "--batch", "16", "--starts", "8", "--json",
]  # fmt: skip


def raced_by_command(folder, *more):
    own = folder / "own.py"
    own.write_text(OWN)
    networks = ["--policy", f"{own}:policy", "--critic", f"{own}:critic"]
    output = ["--output", str(folder / "race.h5")]
    return main(["race", *LQR, *networks, *SMALL, *output, *more])


def test_a_race_has_a_file_and_a_page(tmp_path, capsys):
    assert raced_by_command(tmp_path) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert {row["candidate"] for row in document["table"]} == {"data", "model_all:2"}
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "Which gradient leads farthest?" in page and document["recommendation"]["use"] in page
    names = {"data (critic only)", "model, BPTT at h = 2"}
    race, shown = load(tmp_path / "race.h5"), output.page_of(tmp_path / "race.h5")
    curves = {str(each.get_label()): each for each in shown.panels[0].figure.axes[0].lines}
    assert names <= set(curves) and {race.called(name) for name in race.names} == names
    assert curves["data (critic only)"].get_color() == style.VERMILION
    assert curves["model, BPTT at h = 2"].get_color() == style.CYAN
    assert load(tmp_path / "race.h5").config["command"].startswith("gradlab race")
    assert raced_by_command(tmp_path) == 2 and "exists" in capsys.readouterr().err


GAINS = (-1.0, -1.5, -0.5)  # before, after, and the opposite step


def test_returns_are_those_of_the_closed_form_from_the_same_starts():
    found = gradlab.step(gain_of(GAINS[0]), gain_of(GAINS[1]), Sliding, seed=3)
    seeds = [child(3, f"step {k}") % 2**31 for k in range(found.starts)]
    starts = [np.random.default_rng(each).uniform(1.0, 2.0) for each in seeds]
    exact = [[Sliding.return_of(gain, x) for x in starts] for gain in GAINS]
    np.testing.assert_allclose(found.returns, exact, rtol=1e-5)
    assert found.helped and found.paired and found.starts == 8 and not found.findings
    assert found.after.value == pytest.approx(np.mean(np.subtract(exact[1], exact[0])), rel=1e-5)
    assert found.opposite.high < 0
    assert list(found.table()["policy"]) == ["before", "after", "opposite"]


@pytest.mark.parametrize(
    ("reward", "moved", "code", "light"),
    [
        (lambda a: -(a**2), 1.0, "step_both_below", "choose"),
        (lambda a: a**2, 1.0, "step_both_above", "act"),
        (lambda a: a, 1.0, "", "act"),
        (lambda a: a, -1.0, "", "choose"),
        (lambda a: float(a > 5), 1.0, "step_same", "choose"),
        (lambda a: float(a > 0.5), 1.0, "", "act"),
    ],
)
def test_what_is_said_follows_from_both_signs(reward, moved, code, light):
    found = gradlab.step(gain_of(0.0), gain_of(moved), lambda: Once(reward), at_most=4)
    shown = found.recommendation
    assert [each.code for each in shown.rest] == [code] * bool(code) and shown.light == light
    assert bool(shown.field("normal")) == (found.helped is False)


def test_starts_are_doubled_until_the_signs_are_known_or_to_the_most():
    near = gradlab.step(gain_of(-1.0), gain_of(-1.0 + 1e-6), Noisy, starts=2, at_most=5)
    assert near.starts == 20 and near.helped is None
    shown = near.recommendation
    assert "20 starts" in shown.field("step") and shown.light == "choose"
    assert shown.field("next").startswith("measure ")
    assert gradlab.step(gain_of(-1.0), gain_of(-2.0), Sliding, starts=2, at_most=64).starts < 64


@pytest.mark.parametrize(("world", "why"), [(SeedlessSliding, "no_seed"), (Noisy, "step_unsteady")])
def test_what_cannot_be_paired_is_compared_by_more_starts_and_said(world, why):
    found = gradlab.step(gain_of(-0.5), gain_of(-3.0), world)
    assert not found.paired and found.starts >= 16 and found.helped
    assert (found.findings[0].code, found.findings[0].n) == (why, found.starts)
    expected = [np.mean([Sliding.return_of(g, x) for x in np.linspace(1, 2, 99)])
                for g in (-0.5, -3.0)]  # fmt: skip
    assert found.after.low < expected[1] - expected[0] < found.after.high


def test_places_side_by_side_count_their_first_episode_each():
    found = gradlab.step(gain_of(-1.0), gain_of(-1.5), Side(), starts=3, at_most=3)
    starts = np.random.default_rng(child(0, "step 0") % 2**31).uniform(1, 2, 3)
    factor = (0.9 - 0.2) ** 2
    exact = [-(x**2) * sum(factor**t for t in range(1, n + 1))
             for x, n in zip(starts, (10, 5, 2), strict=True)]  # fmt: skip
    np.testing.assert_allclose(found.returns[0], exact, rtol=1e-5)


def test_vectors_of_gymnasium_equal_their_single_environments():
    gymnasium = pytest.importorskip("gymnasium")
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(4, 2))
    after = copy.deepcopy(before)
    after[0].weight.data.mul_(-1)
    for mode in ("sync", "vector_entry_point"):
        both = gradlab.step(
            before, after, starts=4, at_most=4,
            env=lambda mode=mode: gymnasium.make_vec("CartPole-v1", 4, vectorization_mode=mode),
        )  # fmt: skip
        assert both.paired and both.starts == 4 and np.unique(both.returns[0]).size > 1
        if mode == "sync":  # whose places take the seed, the one after it, and so on
            begun = child(0, "step 0") % 2**31
            assert both.returns[0].tolist() == [lasting(before, begun + k) for k in range(4)]


def lasting(policy, seed):
    """Steps that a pole stands, by the environment alone."""
    import gymnasium

    world = gymnasium.make("CartPole-v1")
    seen, _ = world.reset(seed=seed)
    for total in range(1, 501):
        logits = policy(torch.as_tensor(seen)[None])
        seen, _, fell, cut, _ = world.step(int(logits.argmax()))
        if fell or cut:
            return float(total)
    raise AssertionError("it stands longer than it may")


def test_recurrent_policies_begin_every_episode_anew():
    found = gradlab.step(Counting(-0.1), Counting(-0.2), Sliding, starts=4, at_most=4)
    x = np.random.default_rng(child(0, "step 2") % 2**31).uniform(1, 2)
    exact = 0.0
    for t in range(Sliding.STEPS):
        x = 0.9 * x - 0.2 * 0.1 * t
        exact -= x**2
    assert found.returns[0, 2] == pytest.approx(exact, rel=1e-5)
    inside = gradlab.step(Begun(-0.1), Begun(-0.2), Sliding, starts=4, at_most=4)
    np.testing.assert_allclose(inside.returns, found.returns, rtol=1e-6)
    with pytest.raises(InputError, match=r"keeps a state .* give it reset"):
        gradlab.step(Keeping(-0.1), Keeping(-0.2), Sliding)


def test_nothing_of_the_callers_is_changed():
    before, after = gain_of(-1.0), gain_of(-1.5)
    before.train()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    def make():
        torch.rand(3), np.random.rand(3), random.random()
        return Sliding()

    gradlab.step(before, after, make)
    found = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(found[0], expected[0]) and found[1:] == expected[1:]
    assert before.training and before.weight.item() == -1.0 and after.weight.item() == -1.5


class Failing(Sliding):
    def step(self, action):
        raise RuntimeError("the robot is off")


def lost():
    return gain_of(float("nan"))


def broken():
    raise OSError("no such licence")


@pytest.mark.parametrize(
    ("words", "before", "after", "options"),
    [
        (r"another architecture.*weight is \[1, 1\] before and \[2, 1\] after",
         gain_of(1.0), nn.Linear(1, 2, bias=False), {}),
        ("bias is none before", gain_of(1.0), nn.Linear(1, 1), {}),
        ("equal parameters", gain_of(1.0), gain_of(1.0), {}),
        ("after has parameters that are not finite, first weight", gain_of(1.0), lost(), {}),
        ("before is 3", 3, gain_of(1.0), {}),
        ("no parameters", nn.Identity(), nn.Identity(), {}),
        ("draws inside forward", Drawing(1, 1), Drawing(1, 1), {}),
        ("cannot take inputs of shape", nn.Linear(2, 1), nn.Linear(2, 1), {}),
        ("starts is 1", gain_of(1.0), gain_of(2.0), {"starts": 1}),
        ("at_most is 2", gain_of(1.0), gain_of(2.0), {"at_most": 2}),
        ("updates is 0", gain_of(1.0), gain_of(2.0), {"updates": 0}),
        ("env failed .*no such licence", gain_of(1.0), gain_of(2.0), {"env": broken}),
        ("env failed .*the robot is off", gain_of(1.0), gain_of(2.0), {"env": Failing}),
        ("env is a int without reset", gain_of(1.0), gain_of(2.0), {"env": lambda: 3}),
        ("env failed .*NameNotFound", gain_of(1.0), gain_of(2.0), {"env": "Sliding-v0"}),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_its_name(words, before, after, options):
    with pytest.raises(InputError, match=words):
        gradlab.step(before, after, **{"env": Sliding} | options)


def test_welchs_interval_is_scipys():
    from scipy import stats

    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 7), rng.normal(0.0, 3.0, 12)
    found = difference_of_means(a, b)
    ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-9)


OWN_ENVIRONMENT = """
import torch
from tests.racing.small_environments import Sliding as make_env, gain_of
def before():
    return gain_of(-1.0)
def after():
    return gain_of(-1.5)
"""


def test_the_command_prints_what_the_step_did(tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(OWN_ENVIRONMENT)
    words = ["step", f"{own}:before", f"{own}:after", "--env", f"{own}:make_env"]
    assert main([*words, "--updates", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recommendation"]["step"].startswith("raised the return: +")
    assert document["light"] == "act" and document["paired"]
    assert [row["policy"] for row in document["table"]] == ["before", "after", "opposite"]
    page = tmp_path / "step.html"
    assert main([*words, "--html", str(page)]) == 0
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    assert main([*words[:3], "--env", "Nowhere-v0"]) == 2
    assert "Nowhere" in capsys.readouterr().err
