"""An audit leaves nothing behind and survives what code does.

One step's weight at two lengths of a segment: 1 where it is summed, L / L′ where averaged.
"""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from gradlab.errors import InputError
from gradlab.tools.audit.compute import audit
from tests.auditing import faulty, sound
from tests.auditing.dreaming import dreamer
from tests.auditing.networks import (
    ACTION,
    STATE,
    Deterministic,
    Dynamics,
    Environment,
    Gaussian,
    Q,
    Value,
    states,
)


def _kinds(result):
    return [finding.kind for finding in result.findings]


def test_parameters_gradients_buffers_and_generators_are_as_before():
    actor = nn.Sequential(nn.Linear(STATE, 8), nn.BatchNorm1d(8), nn.Linear(8, ACTION))
    critic = Q()
    for parameter in (*actor.parameters(), *critic.parameters()):
        parameter.grad = torch.ones_like(parameter)
    before = [x.clone() for module in (actor, critic) for x in module.state_dict().values()]
    grads = [p.grad for p in actor.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    calls = nn.Module.__call__, Q.forward, Normal.sample

    def loss(s):
        a = actor(s) + torch.randn(len(s), ACTION) * np.random.rand() * random.random()
        return -critic(s, a).mean()

    audit(loss, actor, critic, inputs=states())
    after = [x for module in (actor, critic) for x in module.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(
        p.grad is g and bool((g == 1).all()) for p, g in zip(actor.parameters(), grads, strict=True)
    )
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]
    assert (nn.Module.__call__, Q.forward, Normal.sample) == calls
    assert not actor._forward_hooks and "forward" not in vars(critic)


def test_same_seed_gives_the_same_audit_in_any_grad_mode():
    torch.manual_seed(0)
    arguments = sound.sac_cleanrl()
    first = audit(**arguments)
    with torch.no_grad():
        assert audit(**arguments) == first
    assert audit(**arguments, seed=1) != first


def test_loss_is_computed_once_without_differences():
    calls = []

    def loss(s):
        calls.append(s)
        return actor(s).sum()

    actor = Deterministic()
    assert audit(loss, actor, inputs=states(), directions=0).passed
    assert len(calls) == 1


def test_critic_of_a_zero_last_layer_is_a_note_and_hides_no_fault():
    actor, critic = Deterministic(), Q()
    nn.init.zeros_(critic.net[2].weight)
    result = audit(lambda s: -critic(s, actor(s)).mean(), actor, critic, inputs=states())
    assert result.passed and "zero layer" in _kinds(result)
    assert "a layer is: critic's net.2.weight; they come" in " ".join(result.sentences)
    assert not bool(critic.net[2].weight.any())
    arguments = faulty.detached()
    nn.init.zeros_(arguments["critic"].net[2].weight)
    assert "detached" in _kinds(audit(**arguments))


def test_truncated_state_is_a_note_and_shortens_the_gradient():
    """The state is as wide as the action: that it is one, only the model shows."""
    torch.manual_seed(0)
    actor, model = nn.Linear(2, 2), nn.Bilinear(2, 2, 2)

    def loss(s):
        total = torch.zeros(len(s))
        for t in range(4):
            s = model(s.detach() if t == 2 else s, actor(s))
            total = total + s.square().sum(1)
        return -total.mean()

    result = audit(loss, actor, model=model, inputs=states()[:, :2])
    assert result.passed and "truncated" in _kinds(result)


def test_mask_of_termination_is_no_lost_path():
    class Masked(Q):
        def valued(self, s, a, alive):
            return self(s, a)[:, 0] * alive

    actor, model, critic = Deterministic(), Dynamics(), Masked()

    def loss(s):
        s2, r = model.predict(s, actor(s))
        alive = (s2[:, 0].abs() < 0.5).float()
        return -(r + alive * critic.valued(s2, actor(s2), alive)).mean()

    found = audit(loss, actor, critic, model, inputs=states())
    assert set(_kinds(found)) == {"left behind"} and "·" not in str(found)


def test_custom_derivative_hides_no_cut():
    """A model whose derivative is its own: torch functions do not show what it does."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, s, a):
            ctx.save_for_backward(a)
            return s + a.sum(1, keepdim=True) ** 3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, *g):
            (a,) = ctx.saved_tensors
            slope = 3 * a.sum(1, keepdim=True) ** 2
            return g[0], (g[0].sum(1, keepdim=True) * slope).expand_as(a)

    class Model(nn.Module):
        def forward(self, s, a):
            s2: Tensor = Cube.apply(s, a)
            return s2

    actor, model, value = Deterministic(), Model(), Value()

    def loss(s, cut, inline):
        a = actor(s)
        s2 = Cube.apply(s, a) if inline else model(s, a)
        v = value(s2.detach() if cut else s2)
        return 0.1 * a.square().mean() - (Cube.apply(v, v) if inline else v).mean()

    assert audit(loss, actor, value, model, inputs=(states(), False, False)).passed
    assert audit(loss, actor, value, model, inputs=(states(), False, True)).passed
    result = audit(loss, actor, value, model, inputs=(states(), True, False))
    assert "truncated" in _kinds(result)


def test_model_that_calls_the_actor_is_split():
    actor = Deterministic()

    class World(Dynamics):
        def imagine(self, policy, s, cut):
            total = torch.zeros(len(s))
            for _ in range(3):
                a = policy(s)
                s, r = self.predict(s, a.detach() if cut else a)
                total = total + r
            return total

    world = World()
    loss = lambda s, cut: -world.imagine(actor, s, cut).mean()  # noqa: E731
    result = audit(loss, actor, model=world, inputs=(states(), False))
    assert result.passed and all(result.norms["loss"]["model"])
    assert _kinds(audit(loss, actor, model=world, inputs=(states(), True)))[0] == "dead actor"


def test_backward_in_the_loss_leaves_no_gradient():
    actor, critic = Deterministic(), Q()

    def loss(s, keep):
        value = -critic(s, actor(s)).mean()
        value.backward(retain_graph=keep)
        return value

    assert audit(loss, actor, critic, inputs=(states(), True)).passed
    with pytest.raises(InputError, match=r"return it before any backward\(\) or step\(\)"):
        audit(loss, actor, critic, inputs=(states(), False))
    assert all(p.grad is None for p in (*actor.parameters(), *critic.parameters()))


def test_visited_states_need_no_path():
    """A simulator that is not watched gives the states; their actions have a path."""
    actor, critic = Deterministic(), Q()

    def loss(s):
        visited = [s]
        with torch.no_grad():
            for _ in range(3):
                visited.append(0.9 * visited[-1] + 0.1 * actor(visited[-1]).sum(1, keepdim=True))
        s = torch.cat(visited)
        return -critic(s, actor(s)).mean()

    result = audit(loss, actor, critic, inputs=states())
    assert result.passed and "truncated" in _kinds(result)


# Bad input of an audit is refused in one line that names it.


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    (dict(loss=3), "loss is 3, expected a function"),
    (dict(loss=lambda s: s), "expected a scalar of floats"),
    (dict(loss=lambda s: 1.0), "loss returns a float, expected a scalar tensor"),
    (dict(loss=lambda s: {}), "loss returns no term"),
    (dict(loss=lambda s: {"Q": 2}), "loss returns for 'Q' a int"),
    (dict(loss=lambda: 0), "loss failed (TypeError"),
    (dict(actor=None), "actor is None"),
    (dict(actor=torch.tanh), "actor is a function: put it into a torch.nn.Module"),
    (dict(actor=Environment()), "expected a torch.nn.Module"),
    (dict(actor=nn.Tanh()), "actor has no parameter that requires a gradient"),
    (dict(actor=[]), "actor is empty"),
    (dict(critic=lambda s, a: s), "critic is a function"),
    (dict(critic=[Q(), "q2"]), "critic 2 is 'q2'"),
    (dict(model=3.0), "model is 3.0"),
    (dict(optimizer="Adam"), "optimizer is 'Adam', expected the actor's torch.optim.Optimizer"),
    (dict(lengths=8), "lengths is 8, expected two of a segment"),
    (dict(lengths=(8, 9)), "expected a second of at least 1.5 times"),
    (dict(lengths=(8, 16)), "unexpected keyword argument 'length'"),
    (dict(seed=-1), "seed is -1"),
)


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_bad_input_is_refused_in_one_line(change, words):
    actor = Deterministic()
    good = dict(loss=lambda s: actor(s).sum(), actor=actor, inputs=states())
    with pytest.raises(InputError) as caught:
        audit(**{**good, **change})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def _ratios(result):
    return {(scale.term, scale.role): scale.ratio for scale in result.scales}


def _loss(rewards, entropy):
    actor, model = Gaussian(), Dynamics()

    def loss(s, length):
        total, log_probs = [], []
        for t in range(length):
            a, log_pi, _ = actor.get_action(s)
            s, r = model.predict(s, a)
            total.append(-(0.9**t) * r)
            log_probs.append(0.1 * 0.9**t * log_pi[:, 0])
        parts = {"return": (rewards, total), "entropy": (entropy, log_probs)}
        return {
            name: (torch.stack(x).sum(0) if how == "sum" else torch.stack(x).mean(0)).mean()
            for name, (how, x) in parts.items()
        }

    return dict(loss=loss, actor=actor, model=model, inputs=states())


@pytest.mark.parametrize("entropy", ["sum", "mean"])
@pytest.mark.parametrize("rewards", ["sum", "mean"])
@pytest.mark.parametrize("lengths", [(4, 8), (3, 9)])
def test_ratio_is_one_of_a_sum_and_that_of_the_lengths_of_a_mean(rewards, entropy, lengths):
    result = audit(**_loss(rewards, entropy), lengths=lengths, directions=0)
    expected = {"sum": 1.0, "mean": lengths[0] / lengths[1]}
    ratios = _ratios(result)
    assert ratios["return", "model"] == pytest.approx(expected[rewards], rel=1e-5)
    assert ratios["entropy", "actor"] == pytest.approx(expected[entropy], rel=1e-5)
    assert result.passed == (rewards == entropy)


@pytest.mark.parametrize("make", [sound.maac, sound.shac, dreamer])
def test_sound_segments_scale_alike(make):
    torch.manual_seed(0)
    result = audit(**make(), lengths=(6, 12), directions=0)
    assert result.passed, result
    assert {scale.role for scale in result.scales} >= {"model"}
