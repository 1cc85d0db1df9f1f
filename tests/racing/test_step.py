"""Steps between two policies, against returns in closed form."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.cli.program import main
from gradlab.data.noise import child
from gradlab.errors import InputError
from gradlab.statistics.over_groups import difference_of_means
from gradlab.tools.race.page import step_page, step_screen
from tests.first_screens import check_first_screen
from tests.racing.small_environments import (
    Begun,
    Counting,
    Drawing,
    Keeping,
    Noisy,
    Once,
    Side,
    Sliding,
    Unseeded,
    gain_of,
)

GAINS = (-1.0, -1.5, -0.5)  # before, after, and the opposite step


def test_returns_are_those_of_the_closed_form_from_the_same_starts():
    found = gradlab.step(gain_of(GAINS[0]), gain_of(GAINS[1]), Sliding, seed=3)
    seeds = [child(3, f"step {k}") % 2**31 for k in range(found.starts)]
    starts = [np.random.default_rng(each).uniform(1.0, 2.0) for each in seeds]
    exact = [[Sliding.return_of(gain, x) for x in starts] for gain in GAINS]
    np.testing.assert_allclose(found.returns, exact, rtol=1e-5)
    assert found.helped and found.paired and found.starts == 8 and not found.notes
    assert found.after.value == pytest.approx(np.mean(np.subtract(exact[1], exact[0])), rel=1e-5)
    assert decided_sides(found) == ("raised", "lower")
    assert list(found.table()["policy"]) == ["before", "after", "opposite"]


def decided_sides(found):
    words = found.headline.split()
    return words[2], words[words.index("would") + 1]


@pytest.mark.parametrize(
    ("reward", "moved", "said", "light"),
    [
        (lambda a: -(a**2), 1.0, "too long a step, or a ridge", "choose"),
        (lambda a: a**2, 1.0, "any move helps", "act"),
        (lambda a: a, 1.0, "would lower it.", "act"),
        (lambda a: a, -1.0, "would raise it.", "choose"),
        (lambda a: float(a > 5), 1.0, "changed no return", "choose"),
        (lambda a: float(a > 0.5), 1.0, "not known", "act"),
    ],
)
def test_what_is_said_follows_from_both_signs(reward, moved, said, light):
    found = gradlab.step(gain_of(0.0), gain_of(moved), lambda: Once(reward), at_most=4)
    assert said in found.headline and step_screen(found).light == light


def test_starts_are_doubled_until_the_signs_are_known_or_to_the_most():
    near = gradlab.step(gain_of(-1.0), gain_of(-1.0 + 1e-6), Noisy, starts=2, at_most=5)
    assert near.starts == 20 and near.helped is None
    assert "20 starts)" in near.headline and step_screen(near).light == "choose"
    assert gradlab.step(gain_of(-1.0), gain_of(-2.0), Sliding, starts=2, at_most=64).starts < 64


@pytest.mark.parametrize(("world", "why"), [(Unseeded, "takes no seed"), (Noisy, "two returns")])
def test_what_cannot_be_paired_is_compared_by_more_starts_and_said(world, why):
    found = gradlab.step(gain_of(-0.5), gain_of(-3.0), world)
    assert (
        not found.paired and found.starts >= 16 and found.helped and why in found.notes["pairing"]
    )
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
    with pytest.raises(InputError, match=r"keeps a state\. Give it a method reset"):
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
        ("env is 'Sliding-v0'", gain_of(1.0), gain_of(2.0), {"env": "Sliding-v0"}),
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


OWN = """
import torch
from tests.racing.small_environments import Sliding as make_env, gain_of
def before():
    return gain_of(-1.0)
def after():
    return gain_of(-1.5)
"""


def test_a_page_says_what_to_do_above_its_figure(tab, tmp_path):
    found = gradlab.step(gain_of(GAINS[0]), gain_of(GAINS[1]), Sliding, seed=3, updates=50)
    page = step_page(found, {"after": "own.py:after", "env": "own.py:make_env"}, {})
    check_first_screen(tab, page, tmp_path)
    screen = step_screen(found)
    assert screen.figure == page.panels[0].name and screen.headline.startswith("Train on: ")
    drawn = {float(x) for each in page.panels[0].figure.axes[0].lines for x in each.get_xdata()}
    table = found.table().set_index("policy")
    for policy in ("after", "opposite"):
        assert drawn > set(table.loc[policy, ["value", "ci_low", "ci_high"]])


def test_the_command_prints_what_the_step_did(tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    words = ["step", f"{own}:before", f"{own}:after", "--env", f"{own}:make_env"]
    assert main([*words, "--updates", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recommendation"].startswith("Train on: these 50 updates raised")
    assert document["light"] == "act" and document["paired"]
    assert [row["policy"] for row in document["table"]] == ["before", "after", "opposite"]
    page = tmp_path / "step.html"
    assert main([*words, "--html", str(page)]) == 0
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    assert main([*words[:3], "--env", "Nowhere-v0"]) == 2
    assert "Nowhere" in capsys.readouterr().err
