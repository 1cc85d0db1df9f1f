"""The share of the time that a probe takes, on a planted clock.

Targets and advantages of the loop's own tensors against their identities.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe import sampler, update_statistics
from gradlab.probe.budget import ALWAYS, UNSEEN, Budget, overdrawn, span
from gradlab.probe.measured import Past
from gradlab.probe.parts import advantages, loss_weights, targets
from gradlab.probe.parts.passes import Heard
from gradlab.probe.update_statistics import FIRST, PAIRS
from gradlab.reporting import probe_page
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.verdicts.probe.findings import facts_of, verdict
from tests.probe.actor_critics import GAMMA, Loop, answers, watched
from tests.probe.planted_probe import H, measurement, written
from tests.probe.small_loops import EYE, Clock, linear_task


def looped(probe: gradlab.Probe, clock: Clock, updates: int, host: float = 1.0) -> list[float]:
    """Updates of `host` seconds each; the share spent after every one."""
    shares = []
    for step in range(updates):
        clock.now += host
        with probe(step):
            probe.policy(torch.randn(4, 2)).sum().backward()
        shares.append(probe.spent)
    return shares


def planted(
    monkeypatch: pytest.MonkeyPatch, updates: int, seconds: float, price: float, share: float = 0.05
) -> tuple[list[float], list[float]]:
    """When measurements of `seconds`, priced at `price` at first, were made, and the shares."""
    made: list[float] = []
    clock = Clock(100.0)

    def measured(question: Any, policy: Any, batch: int, update: int, past: Past) -> Any:
        made.append(clock.now)
        clock.now += seconds
        return {"starts": 64, "variance": np.ones((4, 3))}, past

    monkeypatch.setattr(sampler, "measured", measured)
    monkeypatch.setattr(sampler, "trial_price", lambda question, policy: 0.0)
    monkeypatch.setattr(sampler, "first_price", lambda question, policy: price)
    task = linear_task(B=0.5 * EYE, discount=0.9)
    probe = gradlab.Probe(nn.Linear(2, 2), task=task, overhead_budget=share, clock=clock)
    return made, looped(probe, clock, updates)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
@pytest.mark.sampled(1)
def test_measurements_are_spaced_out_to_keep_the_share(monkeypatch, share):
    made, shares = planted(monkeypatch, 4000, seconds=3.0, price=3.0, share=share)
    # The first one is a loan of three seconds, which the next ones wait for.
    assert made[0] == 102.0 and made[1] >= 100 + 2 * 3.0 / share - 3.0
    assert max(shares[int(60 / share) :]) <= share + 1e-12
    assert len(made) == pytest.approx(share * 4000 / 3.0 / (1 - share), abs=2)


def test_a_price_that_was_too_low_is_paid_once_and_made_up_for(monkeypatch):
    made, shares = planted(monkeypatch, 3000, seconds=20.0, price=0.5)
    assert made[1] - made[0] > 20.0 / 0.05 - 50
    assert max(shares[int(made[1] - 100.0) - 20 :]) <= 0.05 + 1e-12


def test_savings_from_a_price_that_was_too_high_are_not_spent_at_once(monkeypatch):
    made, shares = planted(monkeypatch, 3000, seconds=1.0, price=40.0)
    assert made[0] > 700
    assert min(np.diff(made)) >= 0.5 * 1.0 / 0.05
    assert max(shares) <= 0.05 + 1e-12 and shares[-1] > 0.045


def test_looks_that_cost_too_much_pass_updates_over(monkeypatch):
    clock = Clock(100.0)
    original = update_statistics.UpdateStatistics.gradient

    def slow(self: update_statistics.UpdateStatistics, scale: Any = None) -> torch.Tensor:
        clock.now += 0.5
        return original(self, scale)

    monkeypatch.setattr(update_statistics.UpdateStatistics, "gradient", slow)
    rows: list[dict[str, Any]] = []
    probe = gradlab.Probe(nn.Linear(2, 2), log=rows.append, overhead_budget=0.1, clock=clock)
    looped(probe, clock, 2000)
    assert probe.spent <= ALWAYS * 0.1 + 0.01
    seen = sum(row["vitals/looked"] for row in rows if "vitals/looked" in row)
    assert seen == pytest.approx(ALWAYS * 0.1 * 2000 / (UNSEEN * 0.5), rel=0.1)


def test_the_first_burst_is_short_and_prices_the_others(monkeypatch):
    clock = Clock(100.0)
    lengths: list[int] = []
    original = sampler.Burst

    class Slow(original):  # type: ignore[misc, valid-type]
        def __init__(self, parameters: Any, names: Any, pairs: int) -> None:
            lengths.append(pairs)
            super().__init__(parameters, names, pairs)

        def commit(self) -> None:
            clock.now += 0.2
            super().commit()

    monkeypatch.setattr(sampler, "Burst", Slow)
    probe = gradlab.Probe(nn.Linear(2, 2), overhead_budget=0.05, clock=clock)
    shares = looped(probe, clock, 3000)
    assert lengths[0] == FIRST and set(lengths[1:]) == {PAIRS}
    assert max(shares[100:]) <= 0.05 + 0.2 / 100
    assert len(lengths) - 1 == pytest.approx(0.05 * 3000 / (0.2 * PAIRS), rel=0.2)


def test_a_budget_allows_exactly_its_share():
    clock = Clock(100.0)
    budget = Budget(0.1, clock)
    budget.begin()
    clock.now += 90.0
    assert budget.allows(10.0) and not budget.allows(10.01)
    with budget.paying() as price:
        clock.now += 10.0
    assert price == [10.0] and budget.spent == pytest.approx(0.1)
    assert not budget.allows(0.01)


@pytest.mark.parametrize("tests", [0.0, 0.03])
def test_the_share_holds_from_when_it_was_said_to(tests):
    """A start of 4 s, then 1 s of the loop at a time, of which so much are tests."""
    clock = Clock(100.0)
    budget = Budget(0.05, clock)
    with budget.paying():
        clock.now += 4.0
    budget.begin()
    for _ in range(10):
        begun = clock.now
        clock.now += tests / UNSEEN
        budget.guard(begun)
        clock.now += 1.0 - tests / UNSEEN
    held = budget.holds
    assert f"after about {span(held)} of training" in overdrawn(budget)
    while budget.spent > 0.05:
        begun = clock.now
        clock.now += tests / UNSEEN
        budget.guard(begun)
        clock.now += 1.0 - tests / UNSEEN
    assert budget.elapsed == pytest.approx(held, abs=1.5) and overdrawn(budget) == ""


def test_a_share_that_tests_nearly_fill_is_not_foretold_in_hours():
    """A start of 2.5 s in a run of 30 s, of which tests take nearly the whole share."""
    clock = Clock(100.0)
    budget = Budget(0.05, clock)
    with budget.paying():
        clock.now += 2.5
    budget.begin()
    for _ in range(30):
        begun = clock.now
        clock.now += 0.0495 / UNSEEN
        budget.guard(begun)
        clock.now += 1.0 - 0.0495 / UNSEEN
    assert 3600 < budget.holds < float("inf")
    assert overdrawn(budget).endswith(
        f"{100 * budget.own / budget.elapsed:.2g}% of the time, above 5%"
    )


def test_a_share_that_tests_of_every_update_exceed_is_never_promised():
    clock = Clock(100.0)
    budget = Budget(0.05, clock)
    budget.begin()
    begun = clock.now
    clock.now += 0.1
    budget.guard(begun)
    clock.now += 0.9
    said = "above 5%: tests of every update alone take 17%"
    assert said in overdrawn(budget) and budget.holds == float("inf")


@pytest.mark.parametrize("tests", [0.0, 0.02, 0.03, 0.08])
def test_episodes_keep_a_quarter_whatever_tests_and_the_start_take(tests):
    """A start of 20 s, episodes of 1 s, and so much of every second of the loop in tests."""
    clock = Clock(100.0)
    budget = Budget(0.05, clock, episodes=0.6)
    budget.begin()
    with budget.paying():
        clock.now += 20.0
    played = []
    for _ in range(4000):
        begun = clock.now
        clock.now += tests / UNSEEN
        budget.guard(begun)
        clock.now += 1.0 - tests / UNSEEN
        if budget.episode_wait(1.0) <= 0:
            played.append(budget.elapsed)
            with budget.paying(episode=True):
                clock.now += 1.0
    quarter = 0.25 * 0.05 * budget.elapsed
    assert played[0] <= 1 / (0.25 * 0.05) and len(played) >= quarter - 1
    if tests < 0.75 * 0.05:
        assert budget.spent <= 0.05
    else:
        assert len(played) <= quarter


def trained(share: float, updates: int, price: float, start: float) -> tuple[Budget, float]:
    """A loop of 15 ms an update with episodes and looks at its parts, and when something of `price`
    would first have been made."""
    clock, at = Clock(100.0), float("inf")
    budget = Budget(share, clock, episodes=0.6)
    with budget.paying():
        clock.now += start
    for count in range(1, updates + 1):
        began = budget.begin()
        clock.now += 0.015
        for part, seconds in ((budget.guard, 0.0006), (budget.pay, 0.0012)):
            if part == budget.guard or budget.look():
                began = clock.now
                clock.now += seconds / UNSEEN
                part(began)
        budget.later = budget.of_time(0.04 * count / 10)
        room = budget.own + 0.04 <= 0.8 * share * (budget.elapsed + 0.04)
        if count % 10 == 0 and (count <= 600 or room):
            with budget.paying():
                clock.now += 0.04
        budget.closest = budget.of_time(0.1 * count / 17)
        if count % 17 == 0 and budget.episode_wait(0.1) <= 0:
            with budget.paying(episode=True):
                clock.now += 0.1
        if at == float("inf") and budget.allows(price):
            at = budget.elapsed
    return budget, at


@pytest.mark.parametrize("price", [3.0, 5.0, 8.0])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_the_share_that_would_do_does(share, price):
    """Also where looks and episodes take more of a larger share: "66% would do" was followed, and
    at its end it said "78% would do", while only 51% were spent."""
    budget, at = trained(share, 3000, price, 4.0)
    assert at == float("inf")
    enough = budget.needed(price)
    assert enough < 1 and trained(enough, 3000, price, 4.0)[1] < float("inf")
    assert trained(0.7 * enough, 3000, price, 4.0)[1] == float("inf")


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_what_is_foretold_from_the_start_on_comes_within_half_and_twice_the_time(share):
    """In the midst of first looks on a loan, and once these are paid."""
    came = trained(share, 20000, 5.0, 4.0)[1]
    for updates in (100, 300, 700, 1500):
        budget, _ = trained(share, updates, 5.0, 4.0)
        foretold = budget.elapsed + budget.until(5.0)
        assert foretold / 2 < came < 2 * foretold, updates


# The step that a probe recommends, from cosines at visited states.


SE = 0.02


def run(path: Path, cosines: dict[str, list[float]], law: str = "visited") -> ProbeRun:
    value = np.full((len(ESTIMATORS), H + 1), np.nan)
    for name, over in cosines.items():
        value[ESTIMATORS.index(name), : len(over)] = over
    row = measurement(
        400, cosine=value, cosine_low=value - 2 * SE, cosine_high=value + 2 * SE,
        cosine_se=np.full_like(value, SE),
    )  # fmt: skip
    found = load(written(path, {"measured": [row]}))
    return replace(found, config={**found.config, "law": law})


BACKWARDS = {
    "data": [-0.8],
    "model": [-0.8, -0.5, 0.2, 0.7, 0.75],
    "mixed": [-0.8, 0.9, 0.9, 0.9, 0.9],
}


def test_the_newest_measurement_recommends_a_step(tmp_path):
    found = run(tmp_path / "run.h5", BACKWARDS)
    facts = facts_of(found)
    assert facts is not None
    assert facts.best == ("model", 4) and facts.close(facts.best) == [3, 4]
    assert facts.gains["data", 0].high < 0 and ("model", 0) not in facts.gains
    (told,) = [each for each in verdict(found) if each.code == "probe.best"]
    assert told.decision == "undecided" and told.at == "h = 3–4" and told.value == 0.75


@pytest.mark.parametrize("law", ["start", None])
def test_cosines_at_the_starts_are_no_gains(tmp_path, law):
    found = run(tmp_path / "run.h5", BACKWARDS, law=law)  # type: ignore[arg-type]
    assert facts_of(found) is None
    assert not [each for each in verdict(found) if each.code == "probe.best"]


def test_the_recommended_step_heads_the_page_of_a_sound_loop(tmp_path):
    shown = probe_page.page(run(tmp_path / "run.h5", BACKWARDS)).advice
    assert "3–4 steps" in shown.field("step") and shown.field("finding").startswith("no alarm")
    assert shown.light == "choose"  # no step along it was taken


N = 64
TARGETS, ADVANTAGES = "targets are r + γ (1 − d) v", "advantages are those of GAE"
LIMITS = "time limits are bootstrapped in advantages"


def rows(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    ended = (torch.rand(N, 1) < 0.1).float()
    return {"reward": torch.randn(N, 1), "terminated": ended, "next_value": torch.randn(N, 1)}


def told(
    given: dict[str, Any], method: str = "batch", name: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The check's answer and the alarms, by kind and message."""
    loop, found = Loop(), []
    probe = watched(loop, log=found.append)
    getattr(probe, method)(**given)
    loop.run(probe, 12)
    probe.close()
    name = name or (TARGETS if method == "batch" else ADVANTAGES)
    alarms = [a.message for a in probe.alarms if a.kind in ("wrong targets", "wrong advantages")]
    return answers(found)[name], alarms


def target(r: dict[str, Tensor], gamma: float, mask: Tensor | None = None) -> Tensor:
    mask = 1 - r["terminated"] if mask is None else mask
    return r["reward"] + gamma * mask * r["next_value"]


@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_the_discount_is_read_off_one_batch(gamma):
    r = rows()
    found, alarms = told(r | {"target": target(r, gamma), "discount": gamma})
    assert found["state"] == "sound" and found["value"] == pytest.approx(gamma, abs=1e-6)
    assert not alarms


@pytest.mark.parametrize(
    "used, declared, words",
    [
        (1.0, 0.99, "use γ = 1.0000, not 0.99"),
        (0.99**2, 0.99, "use γ = 0.9801, not 0.99"),
        (1.0, None, "use γ = 1: is the discount left out?"),
    ],
)
def test_another_discount_is_told_at_the_first_batch(used, declared, words):
    r = rows()
    found, alarms = told(r | {"target": target(r, used), "discount": declared})
    assert found["state"] == "fault" and words in alarms[0]


def test_masks_that_are_left_out_or_inverted_are_told():
    r = rows()
    kept = target(r, 0.99, torch.ones(N, 1))
    assert "go on beyond terminal states" in told(r | {"target": kept, "discount": 0.99})[1][0]
    swapped = target(r, 0.99, r["terminated"])
    assert "mask of terminations inverted" in told(r | {"target": swapped, "discount": 0.99})[1][0]


def test_shapes_that_broadcast_are_told():
    r = rows()
    square = r["reward"][:, 0] + 0.99 * (1 - r["terminated"]) * r["next_value"]
    assert square.shape == (N, N)
    assert "[B, B]" in told(r | {"target": square, "discount": 0.99})[1][0]


def test_other_numbers_than_the_loop_s_accuse_nobody():
    r = rows()
    other = target(r, 0.99) - 0.1 * torch.randn(N, 1)
    found, alarms = told(r | {"target": other, "discount": 0.99})
    assert found["state"] == "open" and "the entropy in next_value" in found["proof"]
    assert not alarms


@pytest.mark.parametrize("scale", [0.1, -1.0])
def test_a_reward_that_is_scaled_in_the_targets_is_read(scale):
    r = rows()
    scaled = target(r | {"reward": scale * r["reward"]}, 0.99)
    found, alarms = told(r | {"target": scaled, "discount": 0.99})
    assert found["state"] == "open" and not alarms
    assert found["proof"].startswith(f"y = {scale:.3g} r + 0.99 (1 − d) v in 1 of 1 looks")


def answered(several: list[dict[str, Tensor]]) -> Any:
    """The answer after all of these batches."""
    check = targets.Algebra()
    for r in several:
        check.take(r["reward"], r["terminated"], r["next_value"], r["target"], 0.99)
    return check.answer()


@pytest.mark.parametrize(
    "mistake, words",
    [
        ("kept", "go on beyond terminal states"),
        ("dropped", "drop the reward of terminal steps"),
        ("outside", ""),
    ],
)
def test_a_mistake_in_some_looks_is_not_forgotten_at_those_that_fit(mistake, words):
    several = []
    for seed in range(9):
        r = rows(seed)
        if seed % 3:  # rows that show nothing
            r["terminated"] = torch.zeros(N, 1)
        y, entropy = target(r, 0.99), 0.001 * torch.rand(N, 1)
        if mistake == "kept":
            y = target(r, 0.99, torch.ones(N, 1))
        elif mistake == "dropped":
            y = (r["reward"] + 0.99 * r["next_value"]) * (1 - r["terminated"])
        elif not seed % 3:
            y = y + entropy
        several.append(r | {"target": y})
    found = answered(several)
    assert "in 3 of 9 looks" in found.proof and found.looks == 9
    assert found.state == ("fault" if words else "open") and words in found.message


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("paid, worth", [(1, 1), (10, 1), (0.01, 1), (300, 300)])
def test_looks_that_fit_to_rounding_are_sound(kind, paid, worth):
    several = []
    for seed in range(50):
        r = {name: each.to(kind) for name, each in rows(seed).items()}
        r |= {"reward": paid * r["reward"], "next_value": worth * r["next_value"]}
        several.append(r | {"target": target(r, 0.99)})
    found = answered(several)
    assert found.state == "sound" and found.value == pytest.approx(0.99, abs=1e-3)


@pytest.mark.parametrize("handed", [False, True])
@pytest.mark.parametrize("targets_of, state", [
    ("rows", "off"), ("all rows, [B, B]", "open"), ("one number of all batches", "off"),
])  # fmt: skip
def test_a_loss_of_all_pairs_is_open_where_its_targets_are_not_handed_over(
    targets_of, state, handed
):
    """`handed`: those of half of its rows, the recorded ones (MBPO)."""
    check, critic = targets.Algebra(), torch.nn.Linear(3, 1)
    torch.manual_seed(0)
    for seed in range(10):
        r = rows(seed)
        if handed:
            check.take(r["reward"], r["terminated"], r["next_value"], target(r, 0.99), 0.99)
        states, goals = torch.randn((1 + handed) * N, 3), torch.randn((1 + handed) * N)
        goals = torch.full_like(goals, 2.0) if targets_of.startswith("one") else goals
        values = critic(states)
        errors = values - goals if "[B, B]" in targets_of else values[:, 0] - goals
        (gradient,) = torch.autograd.grad(errors.square().mean(), values)
        twice = {0: gradient, 1: gradient}  # of twin critics in one module
        check.hear([Heard(critic, (states,), (values.detach(),) * 2, False, twice)])
    assert check.answer().state == ("sound" if handed and state == "off" else state)


def test_a_sound_loop_that_hands_over_its_batches_is_sound():
    loop, found = Loop(), []
    probe = watched(loop, log=found.append)

    def hand_over(r: dict[str, Tensor], goal: Tensor, value: Tensor) -> None:
        probe.batch(
            reward=r["reward"], terminated=r["ended"], next_value=value, target=goal,
            discount=GAMMA,
        )  # fmt: skip

    loop.run(probe, 60, hand_over)
    probe.close()
    assert answers(found)[TARGETS]["state"] == "sound" and answers(found)[TARGETS]["looks"] > 5


def rollout(truncated: bool = False) -> dict[str, Any]:
    """T = 40 steps of 3 environments; the reference below is the definition, a double sum."""
    torch.manual_seed(1)
    ended = torch.rand(40, 3) < 0.1
    found = {
        "reward": torch.randn(40, 3), "value": torch.randn(40, 3), "ended": ended.float(),
        "last_value": torch.randn(3), "discount": 0.95, "trace": 0.8,
    }  # fmt: skip
    if truncated:
        limit = ended & (torch.rand(40, 3) < 0.5)
        found |= {"truncated": limit, "final_value": limit * torch.randn(40, 3)}
    return found


def summed(
    r: dict[str, Any], gamma: float = 0.95, trace: float = 0.8, ended: Tensor | None = None,
    final: bool = True, last: bool = True, sign: int = 1,
) -> Tensor:  # fmt: skip
    """± A_t = Σ_k (γλ)^k δ_{t+k}, up to the end of the episode."""
    e = r["ended"] if ended is None else ended
    after = torch.cat([r["value"][1:], r["last_value"][None] * last])
    delta = r["reward"] + gamma * (1 - e) * after - r["value"]
    if final and "final_value" in r:
        delta = delta + gamma * r["final_value"]
    out = torch.zeros(40, 3)
    for n in range(3):
        for t in range(40):
            for k in range(t, 40):
                out[t, n] += sign * (gamma * trace) ** (k - t) * delta[k, n]
                if e[k, n]:
                    break
    return out


MISTAKES: dict[str, dict[str, Any]] = {
    "": {},
    "are dones used": {"ended": torch.zeros(40, 3)},
    "γ and λ exchanged": {"gamma": 0.8, "trace": 0.95},
    "value after its last step": {"last": False},
    "mask of dones inverted": {"ended": 1 - rollout()["ended"]},
    "wrong sign": {"sign": -1},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_advantages_are_recomputed(words):
    r = rollout()
    found, alarms = told(r | {"advantage": summed(r, **MISTAKES[words])}, "rollout")
    assert found["state"] == ("fault" if words else "sound")
    assert bool(alarms) == bool(words) and all(words in each for each in alarms)


@pytest.mark.parametrize(
    "gamma, decay, words",
    [
        (0.95, 0.8**2, "by 0.6400, λ², where γλ is 0.7600"),
        (0.95, 0.95**2, "by 0.9025, γ²,"),
        (0.95, 0.8, "by 0.8000, λ,"),
        (0.95, 0.95, "by 0.9500, γ,"),
        (0.95, 0.5, "by 0.5000 where γλ is 0.7600"),
        (0.95**2, 0.95**2 * 0.8, "are those of γ = 0.9025 and λ = 0.8000, not of 0.95 and 0.8"),
    ],
)
@pytest.mark.parametrize("limits", [False, True])
def test_another_factor_in_the_place_of_a_discount_is_told_by_its_number(
    gamma, decay, words, limits
):
    r = rollout(truncated=limits)
    found, alarms = told(r | {"advantage": summed(r, gamma, decay / gamma)}, "rollout")
    assert found["state"] == "fault" and words in alarms[0]


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("trace", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.sampled(8)
def test_sound_advantages_are_sound_normalised_or_not(gamma, trace, scale):
    """Of values of any size: as they were, by the rollout's mean and deviation, or divided."""
    r = rollout(truncated=True) | {"discount": gamma, "trace": trace}
    r |= {name: scale * r[name] for name in ("value", "last_value", "final_value")}
    a = summed(r, gamma, trace)
    for each in (a, (a - a.mean()) / (a.std() + 1e-8), a / a.std()):
        found, alarms = told(r | {"advantage": each}, "rollout")
        assert found["state"] == "sound" and not alarms
    # Of a rollout without values, γ is not to be read.
    r |= {name: 0 * r[name] for name in ("value", "last_value", "final_value")}
    assert told(r | {"advantage": summed(r, gamma, trace)}, "rollout")[0]["state"] == "sound"


@pytest.mark.parametrize("steps", [1, 2])
def test_a_rollout_of_a_few_steps_is_no_proof_of_a_factor_or_of_a_scale(steps):
    r = {name: x[:steps, :1] if torch.is_tensor(x) and x.ndim == 2 else x
         for name, x in rollout().items()}  # fmt: skip
    r |= {"last_value": r["last_value"][:1], "advantage": torch.randn(steps, 1)}
    found, alarms = told(r, "rollout")
    assert found["state"] == "open" and not alarms


def test_advantages_that_are_off_by_no_named_mistake_are_open():
    r = rollout()
    torch.manual_seed(2)
    found, alarms = told(r | {"advantage": summed(r) + 0.05 * torch.randn(40, 3)}, "rollout")
    assert found["state"] == "open" and not alarms
    assert "changed before they were handed over, or of another formula?" in found["proof"]


@pytest.mark.parametrize("truncated", [False, True])
def test_ends_of_one_step_earlier_are_told(truncated):
    """With values added where time limits end episodes, too."""
    r = rollout(truncated)
    shifted = torch.cat([torch.zeros(1, 3), r["ended"][:-1]])
    assert "one step earlier" in told(r | {"advantage": summed(r, ended=shifted)}, "rollout")[1][0]


@pytest.mark.parametrize("words", ["one step earlier", "are dones used?", "time limits, into"])
@pytest.mark.parametrize("before", [True, False])
def test_an_end_in_the_last_row_names_no_cause_that_others_share(words, before):
    """Unused dones and those of one step earlier are one there: what was named before stays."""
    check = advantages.Advantages()
    for known in (True, False)[not before :]:
        r = rollout(truncated="limits" in words)
        e = r["ended"] if known else torch.eye(40)[-1:].T.expand(40, 3)
        r["ended"] = e
        if "limits" in words:
            r |= {"truncated": e, "final_value": e * torch.randn(40, 3)}
        used = torch.cat([torch.zeros(1, 3), e[:-1]]) * ("earlier" in words)
        advantage = summed(r, ended=used, final=False)
        check.take(advantages.Rollout(**r, advantage=advantage))
    shared = "go on beyond the end of an episode in the rollout's last step: are dones used, each"
    found = check.answer()
    assert found.state == "fault"
    assert (words if before or "limits" in words else shared) in found.message


@pytest.mark.parametrize("ends", [[(39, 0), (39, 1), (39, 2)], [], [(7, 0), (39, 1)]])
@pytest.mark.parametrize("first", [0.0, 1.0])
def test_flags_of_the_state_before_a_step_are_no_fault_of_the_loop(ends, first):
    """CleanRL's dones, also where episodes end exactly with the rollout, or begin with it: alone
    they look like a value after the last step that is missing, or dones that are not used."""
    r = rollout()
    ended = torch.zeros(40, 3)
    for place in ends:
        ended[place] = 1.0
    dones = torch.cat([torch.full((1, 3), first), ended[:-1]])
    given = r | {"advantage": summed(r, ended=ended)}
    found, alarms = told(given | {"ended": dones}, "rollout")
    assert not alarms and found["state"] in ("off", "sound")
    if ended.any():
        assert "torch.cat([dones[1:], next_done[None]])" in found["proof"]
    handed = torch.cat([dones[1:], ended[-1:]])
    assert told(given | {"ended": handed}, "rollout")[0]["state"] == "sound"


@pytest.mark.parametrize("own", [True, False])
def test_ends_of_one_step_later_are_told_where_last_observations_are_valued_at_the_ends(own):
    """`own`: ended is that of the steps, as the values show; else CleanRL's dones, GAE right."""
    r = rollout(truncated=True)
    later = torch.cat([r["ended"][1:], torch.zeros(1, 3)])
    dones = torch.cat([torch.zeros(1, 3), r["ended"][:-1]])
    given = {"advantage": summed(r, ended=later)} if own else {"ended": dones}
    r |= {"advantage": summed(r)} | given
    found, alarms = told(r, "rollout")
    assert found["state"] == ("fault" if own else "off")
    assert ["one step later" in each for each in alarms] == [True] * len(alarms) and own == bool(
        alarms
    )


@pytest.mark.parametrize("handed", ["as it is", "", "0"])
def test_time_limits_that_are_ends_are_told(handed):
    r = rollout(truncated=True)
    cut = summed(r, final=False)
    given = r if handed else {k: v for k, v in r.items() if k != "final_value"}
    given = given | ({"final_value": torch.zeros(40, 3)} if handed == "0" else {})
    found, alarms = told(given | {"advantage": cut}, "rollout", LIMITS)
    assert found["state"] == "fault" and "treat time limits as ends" in alarms[0]
    found, alarms = told(r | {"advantage": summed(r)}, "rollout", LIMITS)
    assert found["state"] == "sound" and not alarms


def carried(r: dict[str, Any], gamma: float, trace: float, next_value: bool) -> Tensor:
    """GAE whose sum goes on across time limits, by the value of the last observation, or by that of
    the next episode's first one."""
    limit = r["truncated"].float()
    after = torch.cat([r["value"][1:], r["last_value"][None]])
    following = (1 - r["ended"]) * after + (limit * after if next_value else r["final_value"])
    out, following_advantage = torch.zeros(40, 3), torch.zeros(3)
    for t in reversed(range(40)):
        on = 1 - r["ended"][t] + limit[t]
        delta = r["reward"][t] + gamma * following[t] - r["value"][t]
        out[t] = following_advantage = delta + gamma * trace * on * following_advantage
    return out


AFTER = [lambda a: a, lambda a: (a - a.mean()) / (a.std() + 1e-8), lambda a: a / a.std()]


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize(
    ("gamma", "trace"), [(0.9, 0.5), (0.95, 0.8), (0.99, 0.95), (0.999, 1.0), (1.0, 0.9)]
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_mistakes_at_time_limits_are_named_normalised_or_not(gamma, trace, scale, after):
    r = rollout(truncated=True) | {"discount": gamma, "trace": trace}
    r |= {name: scale * r[name] for name in ("value", "last_value", "final_value")}

    def found(advantage: Tensor, **changed: Tensor) -> list[tuple[str, str]]:
        check = advantages.Advantages()
        check.take(advantages.Rollout(**r | {"advantage": after(advantage)} | changed))
        return [(each.state, each.message) for each in (check.answer(), check.limits.answer())]

    sound, cut = summed(r, gamma, trace), summed(r, gamma, trace, final=False)
    assert [state for state, _ in found(sound)] == ["sound", "sound"]
    assert found(cut)[1][0] == "fault" and "treat time limits as ends" in found(cut)[1][1]
    # A loop's own dones may hold terminations alone.
    alone = r["ended"] - r["truncated"].float()
    assert found(sound, ended=alone)[0][0] == "sound"
    for next_value in (False, True):
        wrong = carried(r, gamma, trace, next_value)
        for ended in (r["ended"], alone):
            (state, message), (limits, _) = found(wrong, ended=ended)
            assert (state, limits) == ("fault", "off") and "go on beyond time limits" in message


@pytest.mark.parametrize("trace", [0.0, 0.8])
def test_a_step_of_its_own_at_a_reset_is_no_mistake(trace):
    """There the next value is that of the last observation, and is not handed over twice."""
    r = rollout(truncated=True) | {"trace": trace}
    after = torch.cat([r["value"][1:], r["last_value"][None]])
    advantage = summed(r | {"final_value": r["truncated"] * after}, 0.95, trace)
    for final in (None, torch.zeros(40, 3)):
        given = r | {"advantage": advantage, "final_value": final}
        assert not told(given, "rollout")[1]


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"truncated": None, "final_value": None}, "hand over truncated= and final_value= to"),
        (dict.fromkeys(("value", "final_value"), torch.zeros(40, 3)), "values are 0 where trunc"),
        ({"final_value": torch.full((40, 3), 1e-9)}, "too small"),
        ({"truncated": torch.zeros(40, 3)}, "no episode was cut by a time limit"),
    ],
)
def test_time_limits_are_not_looked_at_without_what_tells_them_from_ends(changed, words):
    r = rollout(truncated=True)
    for cut in (False, True):
        found, alarms = told(
            r | {"advantage": summed(r, final=not cut)} | changed, "rollout", LIMITS
        )
        assert found["state"] == "off" and not alarms
        assert words in found["proof"] or not cut


def test_the_newest_rollout_with_a_time_limit_answers():
    r, without = rollout(truncated=True), rollout()
    cut = r | {"advantage": summed(r, final=False)}
    check = advantages.Advantages()
    for each in (cut, without | {"advantage": summed(without)}):
        check.take(advantages.Rollout(**each))
    assert check.answer().state == "sound" and check.limits.answer().state == "fault"


NOUGHT = torch.zeros(40, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"advantage": NOUGHT},
        {"advantage": NOUGHT * float("nan")},
        {"reward": NOUGHT + float("inf")},
        {"last_value": torch.full((3,), float("nan"))},
    ],
)
def test_no_share_of_advantages_is_printed_where_there_is_none(changed):
    for limits in (False, True):
        r = rollout(limits)
        found, alarms = told(r | {"advantage": summed(r)} | changed, "rollout")
        assert found["state"] == "off" and "not finite" in found["proof"] and not alarms


@pytest.mark.parametrize("broken", ["next_value", "reward"])
def test_no_share_of_targets_is_printed_where_there_is_none(broken):
    r = rows()
    for number in (0.0, float("nan")):
        given = r | {"next_value": r["next_value"] * 0, broken: r[broken] * number}
        found, alarms = told(given | {"target": target(given, 0.99)})
        assert found["state"] == "off" and not alarms
        assert "nan" not in found["proof"] and "in all rows" in found["proof"]
    square = r["reward"][:, 0] + r["next_value"]
    assert "nan" not in told(r | {"target": square})[0]["proof"]


@pytest.mark.parametrize("known", range(11))
def test_a_share_of_the_value_that_is_not_read_says_what_is_missing(known):
    check = loss_weights.LossWeights()
    for k in range(10):
        check._seen.append((0.9, 0.1 if k < known else float("nan"), 0.5, 0.5))
    answer = check.answer()
    assert answer.state == "sound" and "nan" not in answer.proof
    assert ("share of the value 0.10" in answer.proof) == (known >= 6)
    assert (f"advantages, in {known} minibatches of 6" in answer.proof) == (known < 6)
