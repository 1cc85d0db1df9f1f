"""An optimiser's step against its own formula: scrambled gradients are named, sound steps never.

Loops as people write them: one optimiser in turn, an actor made anew, a step that rests.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from contextlib import nullcontext as _quiet
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, RMSprop

import gradlab
from gradlab.probe.alarms.evidence import CAUSES, LEAKED, MISAPPLIED, REPLACED
from gradlab.probe.parts import formula
from gradlab.probe.parts.formula import OwnFormula
from gradlab.probe.parts.networks import Networks
from gradlab.reporting import probe_page
from gradlab.reporting.probe_page import panels
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import ESTIMATORS, LAW
from gradlab.runs.probe.tables import curves
from gradlab.verdicts.probe.findings import followed, verdict
from gradlab.verdicts.probe.screen import SEEN_IN, screen
from tests.first_screens import check_first_screen
from tests.probe.actor_critics import InTurn, Loop, actor, answers, watched
from tests.probe.planted_probe import H, alarm, measurement, window, written
from tests.probe.small_loops import looped, probed

CHECK, NETWORKS = OwnFormula.name, Networks([], None)
SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    (Adam, {}),
    (Adam, {"weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    (Adam, {"fused": True, "eps": 1e-5}),
    (Adam, {"lr": torch.tensor(1e-3), "betas": (0.5, 0.9)}),
    (AdamW, {"weight_decay": 0.5}),
    (AdamW, {"fused": True, "amsgrad": True}),
    (SGD, {}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "dampening": 0.5, "maximize": True, "foreach": True}),
    (SGD, {"weight_decay": 0.5, "fused": True}),
    (RMSprop, {}),
    (RMSprop, {"momentum": 0.9, "alpha": 0.9, "weight_decay": 0.1, "maximize": True}),
]


class Scrambled(Adam):
    """Reads gradients in the order of memory, as a fused kernel does."""

    def _init_group(self, group: Any, params: Any, grads: Any, *rest: Any) -> Any:
        found = super()._init_group(group, params, grads, *rest)
        grads[:] = [g.t().reshape(g.shape) if not g.is_contiguous() else g for g in grads]
        return found


def transposed(parameters: list[Tensor]) -> None:
    """The same gradients, matrices as transposed views."""
    for p in parameters:
        if p.ndim == 2 and p.grad is not None:
            p.grad = p.grad.t().contiguous().t()


class Turned(Loop):
    """Gradients of actor and critics are transposed views."""

    optimizer: Callable[..., Any] = Adam

    def __init__(self) -> None:
        super().__init__()
        for name, of in (("actor_optimizer", self.policy), ("critic_optimizer", self.critics)):
            made = type(self).optimizer(of.parameters(), 1e-3)
            step = made.step
            made.step = lambda made=made, step=step: (
                transposed(made.param_groups[0]["params"]), step()
            )  # fmt: skip
            setattr(self, name, made)


@pytest.mark.parametrize("how", ["kernel", "subclass", "sound"])
def test_gradients_that_are_read_in_the_order_of_memory_are_the_first_cause(how):
    class Made(Turned):
        optimizer = {
            "kernel": lambda *given: Adam(*given, fused=True), "subclass": Scrambled, "sound": Adam
        }[how]  # fmt: skip

    loop, rows = Made(), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 45)
    probe.close()
    found = [alarm for alarm in probe.alarms if alarm.kind in CAUSES]
    found.sort(key=lambda alarm: CAUSES.index(alarm.kind))
    assert answers(rows)[CHECK]["state"] == ("sound" if how == "sound" else "fault")
    assert [alarm.kind for alarm in found[:1]] == ([] if how == "sound" else [MISAPPLIED])
    if found:
        words = found[0].message
        kind = "Scrambled" if how == "subclass" else "Adam"
        assert f"not {kind}'s own formula: parameter body.0.weight of critic" in words
        assert "its gradient is not contiguous" in words and " moved by " in words


@pytest.mark.parametrize("kind, given", SETTINGS)
def test_formulas_are_torchs_on_contiguous_copies(kind, given, monkeypatch):
    """With clipping, schedules, rests, several groups and what the loop writes after a step."""
    monkeypatch.setattr(formula, "_SELDOM", 1)
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(torch.float32)
    groups = [{"params": policy[0].parameters()}, {"params": policy[2].parameters(), "lr": 3e-3}]
    optimizer = kind(groups, **deepcopy({"lr": 1e-2} | given))
    check = OwnFormula(policy)
    for step in range(40):
        policy[0].bias.requires_grad_(step % 5 > 0)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        (policy(torch.randn(6, 3)).square().sum() * (step % 7 > 0)).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 0.3)
        optimizer.param_groups[0]["lr"] *= 0.9
        check.begin()
        check.before(optimizer)
        optimizer.step()
        check.after(optimizer)
        with torch.no_grad():
            policy[2].weight.clamp_(-0.3, 0.3)
    found = check.answer(NETWORKS)
    assert found.state == "sound" and found.looks > 40 and found.value < 0.2, found


@pytest.mark.parametrize("kind, given", SETTINGS)
def test_one_wrong_entry_of_a_step_is_seen(kind, given):
    policy = nn.Linear(3, 4)
    optimizer = kind(policy.parameters(), **deepcopy({"lr": 1e-2} | given))
    check = OwnFormula(policy)
    for _ in range(6):
        optimizer.zero_grad()
        policy(torch.randn(6, 3)).square().sum().backward()
        check.begin()
        check.before(optimizer)
        was = policy.weight.detach().clone()
        optimizer.step()
        with torch.no_grad():  # by a hundredth of its move
            policy.weight[1, 1] += 0.01 * (policy.weight - was)[1, 1]
        check.after(optimizer)
    found = check.answer(NETWORKS)
    assert found.state == "fault" and "parameter weight moved by" in found.message


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_rounding_is_that_of_the_parameters(kind):
    policy = nn.Linear(3, 4).to(kind)
    optimizer = Adam(policy.parameters(), 0.1)
    check = OwnFormula(policy)
    for _ in range(30):
        optimizer.zero_grad()
        policy(torch.randn(6, 3).to(kind)).square().sum().backward()
        check.begin()
        check.before(optimizer)
        optimizer.step()
        check.after(optimizer)
    found = check.answer(NETWORKS)
    assert found.state == "sound" and found.looks > 20


class _Own(Adam):
    """Half of Adam's step and noise, by a formula of its own."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()


def _hooked(*given: Any) -> Adam:
    made = Adam(*given)
    made.register_step_post_hook(lambda *_: None)
    return made


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_Own, "no formula of _Own"),
        (torch.optim.Adagrad, "no formula of Adagrad"),
        (lambda *given: RMSprop(*given, centered=True), "centred"),
        (_hooked, "hooks of the loop's own"),
    ],
)
def test_what_has_no_formula_says_why(make, words):
    policy, rows = nn.Linear(2, 3), []
    optimizer = make(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows)
    looped(policy, optimizer, probe, 60, lambda step: policy(torch.randn(4, 2)).square().sum())
    probe.close()
    found = answers(rows)[CHECK]
    assert found["state"] == "off" and words in found["proof"]


# What a loop is told that follows the critic alone, as SAC, TD3 and DDPG do.


SE = 0.05
LONGER = {"model": [0.1, 0.3, 0.7, 0.75], "true_dynamics": [0.8, 0.9, 0.95, 0.95]}


def judged(
    update: int, critic: float, longer: dict[str, list[float]] = LONGER, **more: Any
) -> dict[str, Any]:
    """A measurement with these cosines, the critic's at h = 0."""
    value = np.full((len(ESTIMATORS), H + 1), np.nan)
    value[0, 0] = critic
    for name, over in longer.items():
        value[ESTIMATORS.index(name), 1:] = over
    return measurement(
        update, cosine=value, cosine_low=value - 2 * SE, cosine_high=value + 2 * SE,
        cosine_se=np.full_like(value, SE), **more,
    )  # fmt: skip


def run(
    path: Path, *measured: dict[str, Any], alarms: Any = (), alone: bool = True, returns: Any = ()
) -> ProbeRun:
    rows = {"vitals": [window(k) for k in range(1, 31)], "measured": measured, "alarms": alarms}
    found = load(written(path, rows | {"returns": returns}, critic_alone=alone))
    return replace(found, config=found.config | {"law": LAW})


def test_the_step_is_of_the_gradient_that_the_loop_follows(tmp_path):
    raised = [alarm(0, 400, "wrong direction")]
    found = run(tmp_path / "run.h5", judged(400, -0.71), alarms=raised)
    first = screen(found)
    assert first.field("step") == (
        "At step 399 a step along the actor's gradient lowered the return: cosine -0.71 (CI -0.81 "
        "to -0.61), from 64 starts. The model gradient (first action) at h = 3–4 would raise it: "
        "cosine 0.75 (CI 0.65–0.85), from 64 starts."
    )
    assert first.field("next") == "Improve the critic if this lasts."
    assert first.light == "none" and first.figure == "cosine"


@pytest.mark.parametrize(
    ("critic", "decision", "light"),
    [(-0.71, "fail", "none"), (0.71, "pass", "act"), (0.05, "undecided", "choose")],
)
def test_the_newest_measurement_decides(tmp_path, critic, decision, light):
    found = run(tmp_path / "run.h5", judged(400, -critic), judged(3000, critic))
    own = followed(found)
    assert own is not None and own.decision == decision and screen(found).light == light
    assert own.value == critic and own.at == "step 2,999" and own in verdict(found)


def test_an_alarm_of_long_ago_does_not_outweigh_the_newest_measurement(tmp_path):
    raised = [alarm(0, 400, "wrong direction")]
    found = run(tmp_path / "run.h5", judged(400, -0.7), judged(3000, 0.7), alarms=raised)
    assert screen(found).light == "act"


def test_another_fault_comes_first_and_the_direction_after_it(tmp_path):
    raised = [alarm(0, 300, "wrong direction"), alarm(1, 500, "saturated actor")]
    first = screen(run(tmp_path / "run.h5", judged(400, -0.7), alarms=raised))
    assert first.field("finding").startswith("saturated actor at step")
    also = "At step 399 a step along the actor's gradient lowered the return"
    assert first.field("also").startswith(also)  # no other alarm
    assert first.figure == "saturation"


def test_an_alarm_about_a_gradient_that_the_loop_need_not_follow_is_no_fault_of_it(tmp_path):
    raised = [alarm(0, 400, "critic-dominated bias"), alarm(1, 500, "wrong direction")]
    found = run(tmp_path / "run.h5", judged(400, -0.71), alarms=raised, alone=False)
    assert followed(found) is None
    first = screen(found)
    about = "if the loop follows first-action gradients at visited states: wrong direction at step"
    assert first.light == "choose" and first.field("finding").startswith(about)
    assert not first.field("next")  # no weight of gradients that an alarm is about
    raised.append(alarm(2, 600, "saturated actor"))
    first = screen(run(tmp_path / "more.h5", judged(400, -0.71), alarms=raised, alone=False))
    assert first.field("finding").startswith("saturated actor at step")
    assert first.light == "none" and first.field("also") == "2 other kinds of alarm"


@pytest.mark.parametrize("alarms", [[], [alarm(0, 400, "critic-dominated bias")]])
def test_a_return_that_rises_is_not_red_beside_gradients_that_show_nothing(tmp_path, alarms):
    """Neither where no step is shown to help nor where an alarm is about first actions."""
    flat = judged(400, 0.05, {"model": [0.05] * 4, "true_dynamics": [0.05] * 4})
    returns = [
        {"update": 40 * k, "step": 40 * k, "value": float(k + k % 3), "length": 100, "seconds": 0.1}
        for k in range(1, 65)
    ]
    first = screen(run(tmp_path / "run.h5", flat, alarms=alarms, alone=False, returns=returns))
    assert re.match(r"Over the last [\d,]+ updates the return rose by", first.field("return"))
    assert first.light == ("choose" if alarms else "act")
    unknown = screen(run(tmp_path / "unknown.h5", flat, alone=False))
    assert unknown.light == "choose" and unknown.field("step").startswith("no update yet: ")


def test_the_first_screen_holds_its_words(tab, tmp_path):
    page = probe_page.page(run(tmp_path / "run.h5", judged(400, -0.71)))
    check_first_screen(tab, page, tmp_path)


def test_every_figure_of_a_fault_is_a_panel():
    assert set(SEEN_IN.values()) <= set(probe_page.PANELS)


IN_TURN = {
    "": set(),
    "actor at rest": {"actor does not move"},
    "critic at rest": {"critic does not move"},
    "critic moves along": {"actor's steps move another network"},
    "detached actor": {"dead path", "dead inputs"},
}


# A sound loop in every way of turns, a fault in one or two of them.
MARKED, ZEROED, BARE = (True, True), (True, False), (False, True)
TURNS = [
    ("", MARKED), ("", ZEROED), ("", BARE), ("actor at rest", ZEROED), ("critic at rest", BARE),
    ("critic moves along", MARKED), ("critic moves along", BARE), ("detached actor", MARKED),
    ("detached actor", BARE),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "turns"), TURNS)
@pytest.mark.sampled(3)
def test_a_step_of_one_of_two_is_no_update_of_the_other(fault, turns):
    marked, none = turns
    loop, rows = InTurn(fault, marked, none), []
    probe = watched(loop, log=rows.append, critic_optimizer=loop.critic_optimizer)
    loop.run(probe, 210)
    probe.close()
    assert {alarm.kind for alarm in probe.alarms} == IN_TURN[fault]
    if fault != "detached actor":
        assert probe._updates.count == 210
        row = next(row for row in rows if "vitals/critic_steps" in row)
        assert row["vitals/zero/2.weight"] == 0 and row["vitals/critic_norm"] > 0


class AtOnce(InTurn):
    """One optimiser and one loss, of which the actor is a part at every other step."""

    def run(self, probe: gradlab.Probe | None, updates: int, each: object = None) -> None:
        for step in range(updates):
            rows = self.batch()
            goal, _ = self.target_values(rows)
            values = [critic(rows["state"], rows["action"]) for critic in self.critics]
            loss = torch.stack([((value - goal) ** 2).mean() for value in values]).sum()
            if step % 2:
                self.critics.requires_grad_(self.fault == "critic moves along")
                loss = loss + self.actor_loss(rows)
                self.critics.requires_grad_(True)
            self.actor_optimizer.zero_grad()
            with probe(step) if probe else _quiet():
                loss.backward()
            self.actor_optimizer.step()
            self.follow()


@pytest.mark.parametrize("fault", ["", "critic moves along"])
def test_a_step_of_the_critic_alone_makes_no_fault_of_one_loss(fault):
    loop = AtOnce(fault)
    probe = watched(loop, critic_optimizer=loop.critic_optimizer)
    loop.run(probe, 210)
    probe.close()
    assert {alarm.kind for alarm in probe.alarms} == ({LEAKED} if fault else set())


SWAPPED = {
    "optimiser": "another optimiser that holds the policy",
    "actor": "the optimiser of another policy of the same shapes",
    "actor of the same values": "the optimiser of another policy of the same shapes",
    "layers": "the policy's layers were replaced",
    "": "",
}


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("what", SWAPPED)
@pytest.mark.sampled(4)
def test_a_swap_is_named_within_50_updates(what, marked):
    loop = Loop()
    probe = watched(loop)
    loop.run(probe if marked else None, 70)
    if what.startswith("actor"):
        loop.policy = copy.deepcopy(loop.policy) if "values" in what else actor()
    elif what == "layers":
        loop.policy[2] = nn.Linear(16, 1)
    if what:
        loop.actor_optimizer = torch.optim.Adam(loop.policy.parameters(), 1e-3)
    loop.run(probe if marked else None, 50)
    assert [alarm.kind for alarm in probe.alarms] == ([REPLACED] if what else [])
    assert all(alarm.message.startswith(SWAPPED[what]) for alarm in probe.alarms)


def test_a_policy_that_was_never_the_one_that_is_trained_is_named():
    loop = Loop()
    probe = watched(loop)
    loop.policy = copy.deepcopy(loop.policy)
    loop.actor_optimizer = torch.optim.Adam(loop.policy.parameters(), 1e-3)
    loop.run(probe, 50)
    assert [alarm.kind for alarm in probe.alarms] == [REPLACED]


@pytest.mark.parametrize("critics", [False, True])
def test_agents_that_are_trained_one_after_the_other_are_no_swap(critics):
    probes, names = [], []
    for _ in range(2):
        policy, critic, rows = actor(), nn.Linear(8, 1), []
        optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
        regression = torch.optim.Adam(critic.parameters(), 1e-3)
        probes.append(gradlab.Probe(policy, optimizer, log=rows.append))
        names.append(rows)
        with pytest.warns(RuntimeWarning, match="close this one") if len(names) > 1 else _quiet():
            for _ in range(60):
                if critics:  # new, and of other shapes: no sign that the first loop goes on
                    regression.zero_grad()
                    critic(torch.randn(4, 8)).mean().backward()
                    regression.step()
                optimizer.zero_grad()
                policy(torch.randn(8, 2)).mean().backward()
                optimizer.step()
    for probe, rows in zip(probes, names, strict=True):
        probe.close()
        assert not probe.alarms
        found = answers(rows)["the probe's policy is the one that is trained"]
        assert found["state"] == "sound"


def test_rows_of_one_step_stand_apart_in_their_order(tmp_path):
    """As in PPO: all updates of a rollout are at its last step."""
    policy, path = actor(), tmp_path / "run.h5"
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=path, overhead_budget=1.0, clock=lambda: 0.0)
    for update in range(600):
        optimizer.zero_grad()
        with probe(2048 * (1 + update // 300)):
            policy(torch.randn(8, 2)).mean().backward()
        optimizer.step()
    probe.close()
    run = load(path)
    table = curves(run)
    norms = table[table["quantity"] == "grad_norm"]["step"]
    assert norms.to_numpy() == pytest.approx(2048 * np.arange(1, 7) / 3)
    assert panels(run)


# What a tanh lets through, and which tensors an update reaches.


def rows(net: nn.Module, held: list[nn.Parameter], states: torch.Tensor) -> list[dict[str, object]]:
    """Vitals of two windows."""
    optimizer = torch.optim.SGD(held, 0.0)
    probe = probed(net, optimizer)
    looped(net, optimizer, probe, 200, lambda step: net(states).sum())
    assert not probe.off
    return [dict(row) for row in probe.alarm_log.rows["vitals"]]


@pytest.mark.parametrize("size", [0.1, 2.0, 30.0])
def test_attenuation_is_the_mean_derivative_of_the_tanh(size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    states = size * torch.randn(16, 3, dtype=torch.float64)
    latent = net[0](states).detach().requires_grad_()
    (slope,) = torch.autograd.grad(torch.tanh(latent).sum(), latent)
    first, _ = rows(net, [*net.parameters()], states)
    np.testing.assert_allclose(first["attenuation"], slope.mean(0).numpy(), rtol=1e-9, atol=1e-12)


def test_actions_that_are_nan_leave_the_others_of_the_row_known():
    torch.manual_seed(0)
    net, states = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double(), torch.randn(16, 3).double()
    known, _ = rows(net, [*net.parameters()], states)
    lost = torch.cat([states, torch.full((4, 3), torch.nan, dtype=torch.float64)])
    first, _ = rows(net, [*net.parameters()], lost)
    for name in ("attenuation", "saturation"):
        np.testing.assert_allclose(first[name], known[name], rtol=1e-12)
    assert first["nonfinite_updates"] == first["looked"]  # and that they are lost is counted


def test_what_an_update_reaches_is_said_once():
    net, other = nn.Linear(3, 1), nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    held = [net.weight, *other.parameters()]
    first, second = rows(net, held, torch.randn(4, 3))
    assert str(first["reaches"]).startswith(
        "updates move 1 of 2 tensors of the policy and 2 others; no task"
    )
    assert second["reaches"] == ""
