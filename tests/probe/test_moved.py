"""Who moved: planted faults are told by their code, sound loops by none, and no bit of either is
changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.probe.moved import BETWEEN, Movements
from tests.probe.actor_critics import Batched, Critic, InTurn, Loop, Soft, actor

UPDATES = 40


def declared(loop: Loop, **given: Any) -> Movements:
    networks = {
        "actor": loop.policy, "critic": loop.critics, "target_critic": loop.targets,
        "target_actor": loop.target_policy,
    }  # fmt: skip
    optimizers = {"actor": loop.actor_optimizer, "critic": loop.critic_optimizer}
    if hasattr(loop, "model"):
        networks["model"], optimizers["model"] = loop.model, loop.model_optimizer
    return Movements(networks, optimizers, **given)


def faults(movements: Movements) -> set[str]:
    return {each.code for each in movements.findings() if each.decision == "fail"}


def watched(loop: Loop, updates: int = UPDATES, marked: bool = True) -> set[str]:
    movements = declared(loop)

    @contextmanager
    def mark(step: int) -> Iterator[None]:
        movements.mark("actor")
        yield
        movements.mark("")

    loop.run(mark if marked else None, updates)  # type: ignore[arg-type]
    assert not movements.error
    for each in movements.findings():
        assert each.decision != "skipped" and each.sentence and (each.remedy or not each.at)
    return faults(movements)


FAULTS: dict[str, tuple[Callable[[str], Loop], str]] = {
    "policy at rest": (Loop, "moved_still"),
    "one of twins in no optimiser": (Loop, "moved_still"),
    "one of twins in no loss": (Loop, "moved_still"),
    "twins of equal weights": (Loop, "moved_twins_equal"),
    "critic in the actor's optimiser": (Loop, "moved_by_another"),
    "one of twin critics in the actor's optimiser": (Loop, "moved_by_another"),
    "model in the actor's optimiser": (Loop, "moved_by_another"),
    "outside of steps": (Loop, "moved_between"),
    "target into network": (Loop, "moved_between"),
    "swapped tau": (Loop, "moved_target_fast"),
    "copied at every step": (Loop, "moved_target_fast"),
    "crossed targets": (Loop, "moved_target_astray"),
    "gradients add up": (Loop, "moved_uncleared"),
    "actor's gradients in the critic": (Loop, "moved_mixed"),
    "actor's gradients in the model": (Loop, "moved_mixed"),
    "critic's gradients in the policy": (Soft, "moved_mixed"),
    "critic moves along": (InTurn, "moved_mixed"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("marked", [True, False])
def test_a_planted_fault_is_told_by_its_code(fault, marked):
    make, code = FAULTS[fault]
    assert watched(make(fault), marked=marked) == {code}


@pytest.mark.parametrize(
    "fault, networks",
    [("frozen targets", 3), ("one frozen target", 1), ("frozen target of the policy", 1)],
)
def test_targets_that_rest_are_told(fault, networks):
    loop = Loop(fault)
    movements = declared(loop)
    loop.run(None, 120)
    assert not faults(movements)
    loop.run(None, 130)
    told = [each for each in movements.findings() if each.code == "moved_target_frozen"]
    assert len(told) == networks and faults(movements) == {"moved_target_frozen"}


@pytest.mark.parametrize("make", [Loop, Soft, InTurn, lambda: Loop(twins=1), lambda: Loop("model")])
@pytest.mark.parametrize("marked", [True, False])
def test_a_sound_loop_has_no_fault(make, marked):
    assert not watched(make(), updates=80, marked=marked)


@pytest.mark.parametrize("alias", ["module", "memory"])
def test_a_target_that_is_the_network_itself_is_told(alias):
    loop = Loop()
    if alias == "module":
        loop.targets[1] = loop.critics[1]
    else:
        pairs = zip(loop.targets[1].parameters(), loop.critics[1].parameters(), strict=True)
        for its, own in pairs:
            its.data = own.data
    assert watched(loop) == {"moved_target_same"}


@pytest.mark.parametrize("sent", [True, False])
def test_targets_that_an_optimiser_holds_are_told_where_a_loss_sends_to_them(sent):
    loop = Loop()
    every = [*loop.critics.parameters(), *loop.targets.parameters()]
    loop.critic_optimizer = torch.optim.Adam(every, 1e-3)
    plain = loop.target_values

    def with_gradient(rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        value = sum(target(rows["next"], loop.target_policy(rows["next"]).detach())
                    for target in loop.targets)  # fmt: skip
        return plain(rows)[0] + value - value.detach(), value.detach()

    loop.target_values = with_gradient if sent else plain
    assert watched(loop) == ({"moved_target_stepped"} if sent else set())


@pytest.mark.parametrize("order", ["fixed", "critic first", "actor first"])
def test_a_critic_steps_along_its_own_loss_in_any_order_of_passes(order):
    """Both backward passes before both steps."""
    loop = Loop(twins=1)
    movements = declared(loop)
    for _ in range(UPDATES):
        rows = loop.batch()
        goal, _ = loop.target_values(rows)
        loop.critic_optimizer.zero_grad()
        (loop.critics[0](rows["state"], rows["action"]) - goal).square().mean().backward()
        if order == "fixed":
            loop.critic_optimizer.step()
        loop.actor_optimizer.zero_grad()
        loop.actor_loss(rows).backward()
        steps = [loop.critic_optimizer, loop.actor_optimizer]
        for each in {"fixed": steps[1:], "critic first": steps}.get(order, steps[::-1]):
            each.step()
        loop.follow()
    assert faults(movements) == (set() if order == "fixed" else {"moved_mixed"})


@pytest.mark.parametrize("equal", [True, False])
def test_equal_members_of_one_module_are_told(equal):
    torch.manual_seed(0)
    critic = Batched("nb", 2)
    if equal:
        critic.critics[1].load_state_dict(critic.critics[0].state_dict())
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    movements = Movements({"critic": critic}, {"critic": optimizer})
    for _ in range(30):
        x = torch.randn(8, 3)
        optimizer.zero_grad()
        critic(x[:, :2], x[:, 2:]).square().sum().backward()
        optimizer.step()
    assert faults(movements) == ({"moved_twins_equal"} if equal else set())


BETWEEN_STEPS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "entries clipped": (lambda p: p.clamp_(-0.1, 0.1), True),
    "one norm": (lambda p: p.div_(p.norm()), True),
    "rows of one norm": (lambda p: p.div_(p.norm(dim=-1, keepdim=True)), True),
    "rows of a largest norm": (lambda p: p.renorm_(2, 0, 0.1), True),
    "smaller": (lambda p: p.mul_(0.999), False),
    "nearer to another": (lambda p: p.lerp_(torch.ones_like(p), 1e-3), False),
    "noise": (lambda p: p.add_(1e-4 * torch.randn_like(p)), False),
}


@pytest.mark.parametrize("name", BETWEEN_STEPS)
def test_weights_that_are_projected_after_a_step_are_nobody_elses(name):
    torch.manual_seed(0)
    policy, (change, sound) = nn.Linear(4, 8, bias=False), BETWEEN_STEPS[name]
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    movements = Movements({"actor": policy}, {"actor": optimizer})
    for _ in range(UPDATES):
        optimizer.zero_grad()
        (policy(torch.randn(8, 4)) - 0.5).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            change(policy.weight)
    assert faults(movements) == (set() if sound else {"moved_between"})


def fitted(
    policy: nn.Module, optimizer: Any, updates: int = UPDATES, passes: int = 1,
    cleared: bool = True,
) -> None:  # fmt: skip
    """A fit of `passes` backward passes a step."""
    for _ in range(updates):
        if cleared:
            optimizer.zero_grad()
        for _ in range(passes):
            (policy(torch.randn(8, 2)) - 0.5).square().mean().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 0.1)
        optimizer.step()


@pytest.mark.parametrize("cleared", [True, False])
@pytest.mark.parametrize("passes", [1, 3])
def test_accumulated_passes_are_cleared_between_steps(passes, cleared):
    torch.manual_seed(0)
    policy = actor()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    movements = Movements({"actor": policy}, {"actor": optimizer})
    fitted(policy, optimizer, passes=passes, cleared=cleared)
    assert faults(movements) == (set() if cleared else {"moved_uncleared"})


@pytest.mark.parametrize("make, updates, code", [
    (lambda p: torch.optim.Adam(p, 0.3), 60, {"moved_far", "moved_unusual"}),
    (lambda p: torch.optim.Adam(p, 1e-7), 300, {"moved_little", "moved_unusual"}),
    (lambda p: torch.optim.Adam(p, 1e-3, eps=0.1), 60, {"moved_unusual"}),
    (lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=1.0), 60, {"moved_unusual"}),
    (lambda p: torch.optim.Adam(p[-2:], 1e-3), 60, {"moved_in_part"}),
    (lambda p: torch.optim.Adam(p, 1e-3), 60, set()),
    (lambda p: torch.optim.AdamW(p, 1e-3, fused=True), 60, set()),
    (lambda p: torch.optim.SGD(p, 1e-1, maximize=True), 60, set()),
])  # fmt: skip
def test_sizes_of_steps_and_settings_are_within_usual_ones(make, updates, code):
    torch.manual_seed(0)
    policy = actor()
    optimizer = make([*policy.parameters()])
    movements = Movements({"actor": policy}, {"actor": optimizer})
    fitted(policy, optimizer, updates=updates)
    assert faults(movements) == code


def test_the_largest_rate_of_a_run_counts_not_that_of_its_warm_up_or_end():
    torch.manual_seed(0)
    policy = actor()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    movements = Movements({"actor": policy}, {"actor": optimizer})
    for k in range(300):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(k / 100, 1.0) * (k < 200)
        fitted(policy, optimizer, updates=1)
    assert not faults(movements)


def test_one_optimiser_of_two_roles_counts_once_and_a_shared_trunk_is_no_leak():
    torch.manual_seed(0)
    trunk, head, value = nn.Linear(2, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    policy, critic = (nn.Sequential(trunk, nn.Tanh(), x) for x in (head, value))
    for shared in (True, False):
        one = torch.optim.Adam([*policy.parameters(), *value.parameters()], 1e-3)
        two = one
        if not shared:  # the trunk is the critic's alone
            one = torch.optim.Adam(head.parameters(), 1e-3)
            two = torch.optim.Adam(critic.parameters(), 1e-3)
        movements = Movements({"actor": policy, "critic": critic}, {"actor": one, "critic": two})
        for _ in range(40):
            x = torch.randn(16, 2)
            for optimizer in {one, two}:
                optimizer.zero_grad()
            (policy(x).square().mean() + (critic(x) - 1).square().mean()).backward()
            for optimizer in {one, two}:
                optimizer.step()
        movements.close()
        assert not faults(movements)


@pytest.mark.parametrize("every, code", [(20, set()), (1, {"moved_target_fast"})])
def test_rare_hard_copies_are_right(every, code):
    loop = Loop("frozen targets")
    movements = declared(loop)
    for k in range(120):
        loop.run(None, 1)
        if k % every == 0:
            loop.targets.load_state_dict(loop.critics.state_dict())
            loop.target_policy.load_state_dict(loop.policy.state_dict())
    assert faults(movements) == code


def test_between_two_looks_nothing_is_anybodys_and_rare_copies_are_still_seen():
    loop, update = Loop("frozen targets"), 0
    movements = declared(loop, on=lambda: update < 50 or update % 50 == 0)
    for update in range(400):
        loop.run(None, 1)
        if update % 103 == 102:
            loop.targets.load_state_dict(loop.critics.state_dict())
            loop.target_policy.load_state_dict(loop.policy.state_dict())
    assert not faults(movements)
    assert movements.steps["critic"] == 800 and movements.networks["critic 1"].looks == 114
    assert not movements.networks["target critic 1"].moved[BETWEEN]
    told = {each.code: each.decision for each in movements.findings()}
    assert told["moved_own"] == told["moved_targets"] == "pass"


def test_while_it_is_off_hooks_return_at_once():
    loop = Loop()
    movements = declared(loop, on=lambda: False)
    loop.run(None, 5)
    assert not movements.looks and movements._pass is None
    assert movements.steps == {"critic": 10, "actor": 5}


class Wrapped(nn.Module):
    """As torch.compile wraps a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def test_compiled_and_parallel_modules_are_what_they_wrap():
    loop = Loop()
    optimizers = {"actor": loop.actor_optimizer, "critic": loop.critic_optimizer}
    movements = Movements(
        {"actor": nn.DataParallel(loop.policy), "critic": [Wrapped(x) for x in loop.critics],
         "target": loop.targets}, optimizers,
    )  # fmt: skip
    loop.run(None, UPDATES)
    assert not faults(movements) and movements.networks["critic 2"].sizes


def test_steps_that_a_scaler_skips_are_none():
    torch.manual_seed(0)
    policy = actor()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    movements = Movements({"actor": policy}, {"actor": optimizer})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=30)
    for step in range(70):
        optimizer.zero_grad()
        loss = (policy(torch.randn(8, 2)) - 0.5).square().mean()
        scaler.scale(loss * torch.inf if step % 7 == 3 else loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert movements.steps["actor"] == 60 and not faults(movements)


def test_several_optimisers_of_one_role_step_a_network_each():
    loop = Loop()
    both = [torch.optim.Adam(x.parameters(), 1e-3) for x in loop.critics]

    class Both:
        def zero_grad(self) -> None:
            for each in both:
                each.zero_grad()

        def step(self) -> None:
            for each in both:
                each.step()

    loop.critic_optimizer = Both()  # type: ignore[assignment]
    movements = Movements(
        {"actor": loop.policy, "critic": loop.critics, "target": loop.targets},
        {"actor": loop.actor_optimizer, "critic": both},
    )
    loop.run(None, UPDATES)
    assert not faults(movements) and movements.networks["critic 1"].looks == 2 * UPDATES


@pytest.mark.parametrize("make", [Loop, Soft, InTurn])
def test_a_loop_keeps_its_bits(make):
    kept = []
    for on in (None, lambda: True, lambda: False):
        loop = make()
        movements = None if on is None else declared(loop, on=on)
        loop.run(None, 30)
        gradients = [p.grad for p in loop.critics.parameters() if p.grad is not None]
        kept.append([*loop.state(), *gradients, torch.get_rng_state()])
        assert movements is None or movements.findings()
    assert all(torch.equal(a, b) for other in kept[1:] for a, b in zip(kept[0], other, strict=True))


def test_a_hook_that_fails_ends_nothing_and_is_told(monkeypatch):
    loop = Loop()
    movements = declared(loop)
    monkeypatch.setattr(movements, "_compare", lambda *_: 1 / 0)
    with pytest.warns(RuntimeWarning, match="who moved"):
        loop.run(None, 3)
    assert {each.decision for each in movements.findings()} == {"skipped"}
    assert "ZeroDivisionError" in movements.findings()[0].remedy


def test_what_is_not_declared_is_skipped_with_the_line_to_write():
    found = Movements({"actor": actor()}, {}).findings()
    assert {each.decision for each in found} == {"skipped"}
    assert all("={" in each.remedy for each in found)


def test_networks_that_are_no_numbers_do_not_move():
    loop = Loop()
    movements = declared(loop)
    loop.run(None, 25)
    with torch.no_grad():
        torch._foreach_mul_([*loop.state()], torch.nan)
    loop.run(None, 30)
    assert not faults(movements)


def test_what_a_copy_does_is_not_looked_at():
    """A deep copy has the networks' hooks, and none of their tensors."""
    loop = Loop()
    movements = declared(loop)
    twin = copy.deepcopy(loop.policy)
    twin(torch.randn(2, 2)).sum().backward()
    assert movements._pass is None


@pytest.mark.parametrize("networks, optimizers, words", [
    ({"actor": 3}, {}, r"networks\['actor'\] is a int"),
    ({"actor": nn.Tanh()}, {}, "a Tanh, expected .* with parameters"),
    ({"target_critic": Critic()}, {}, r"hand over\s+networks\['critic'\]"),
    ({"critic": Critic(), "target": [Critic(), Critic()]}, {}, "one for each target"),
    ({"critic": Critic(), "target": actor()}, {}, "no network of its shapes"),
    ({"actor": actor()}, {"actor": None}, r"optimizers\['actor'\] is a NoneType"),
])  # fmt: skip
def test_what_cannot_be_declared_is_refused(networks, optimizers, words):
    with pytest.raises(InputError, match=words):
        Movements(networks, optimizers)
