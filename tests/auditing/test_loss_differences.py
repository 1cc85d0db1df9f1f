"""The loss itself against its gradient: surrogates are known, by how much, and by cause."""

import pytest
import torch
from torch import nn

from gradlab.tools.audit.compute import audit
from tests.auditing import sound
from tests.auditing.networks import Deterministic, Dynamics, Q, states


def surrogates(result):
    return [each.severity for each in result.findings if each.kind == "surrogate"]


class Decay(torch.autograd.Function):
    """x, whose gradient is multiplied by α: DiffPhysDrone's g_decay."""

    @staticmethod
    def forward(ctx, x, alpha):
        ctx.alpha = alpha
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0] * ctx.alpha, None


def decayed(alpha, **more):
    torch.manual_seed(0)
    actor, model, critic = Deterministic(), Dynamics(), Q()

    def loss(s):
        for _ in range(2):
            s, _ = model.predict(s, Decay.apply(actor(s), alpha))
        return -critic(s, Decay.apply(actor(s), alpha)).mean()

    return audit(loss, actor, critic, model, inputs=states(), **more)


def test_a_decayed_gradient_is_wrong_unless_it_is_declared():
    assert surrogates(decayed(0.3)) == ["wrong"]
    assert surrogates(decayed(1.0)) == []
    declared = decayed(0.3, surrogate=True)
    assert surrogates(declared) == ["note"] and declared.passed


def test_the_share_that_is_missing_is_that_of_the_whole_gradient():
    """L = Q(s, D(a)): all of the derivative passes D, which leaves α of it."""
    torch.manual_seed(0)
    actor, critic = Deterministic(), Q()
    for alpha in (0.0, 0.5, 0.9, 2.0):
        result = audit(
            lambda s, alpha=alpha: -critic(s, Decay.apply(actor(s), alpha)).mean(),
            actor, critic, inputs=states(),
        )  # fmt: skip
        if alpha == 0:
            assert not result.passed  # a dead actor, which needs no differences
            continue
        (told,) = [each for each in result.findings if each.kind == "surrogate"]
        assert result.derivative.missing == pytest.approx(abs(1 - alpha), rel=0.05)
        assert result.derivative.change == pytest.approx(1 / alpha, rel=0.05)
        assert told.severity == "wrong" and f"{1 / alpha:.2g} times as much" in told.sentence


@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_kinks_of_a_clip_are_no_surrogate(clip: float) -> None:
    """PPO a few updates after its data: ratios lie on both sides of the clip."""
    for seed in range(4, 9):
        torch.manual_seed(seed)
        arguments = sound.ppo(clip, moved=0.3)
        assert surrogates(audit(**arguments)) == [], seed


def test_a_value_loss_beside_a_score_is_a_note():
    """PPO's combined loss, in its first epoch."""
    torch.manual_seed(0)
    actor, value = Deterministic(), nn.Linear(3, 1)
    s = states()
    a = actor(s).detach() + 0.1 * torch.randn(len(s), 2)
    returns = torch.randn(len(s))

    def loss(s):
        density = torch.distributions.Normal(actor(s), 0.1).log_prob(a).sum(1)
        advantage = returns - returns.mean()
        ratio = (density - density.detach()).exp()
        surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        return 0.5 * (value(s)[:, 0] - returns).square().mean() - surrogate

    result = audit(loss, actor, value, inputs=s)
    assert result.passed, result
    assert [each.severity for each in result.findings if each.kind == "dead path"] == ["note"]


def test_a_critic_that_is_normalised_by_its_own_numbers_is_not_missing():
    torch.manual_seed(0)
    actor, critic = Deterministic(), Q()

    def loss(s):
        q = critic(s, actor(s))
        return -((q - q.mean().detach()) / q.std().detach()).mean()

    result = audit(loss, actor, critic, inputs=states())
    assert not [each for each in result.findings if each.kind == "detached"]


def test_a_loss_that_draws_from_its_own_generator_is_not_called_whole():
    torch.manual_seed(0)
    actor, critic, own = Deterministic(), Q(), torch.Generator().manual_seed(0)

    def loss(s):
        a = actor(s)
        return -critic(s, a + 0.1 * torch.randn(a.shape, generator=own)).mean()

    result = audit(loss, actor, critic, inputs=states())
    assert "own draws" in [each.kind for each in result.findings] and result.passed
    assert str(result).startswith(
        "Keep this loss: no fault was found, as far as it could be compared."
    )


@pytest.mark.parametrize("alpha", [0.6, 0.9])
def test_what_a_decay_leaves_of_each_step_is_said(alpha):
    """Four steps s ← D(s) + a_t of actions that do not see s: α^(3 − t) of ∂L/∂a_t is left."""
    torch.manual_seed(0)
    actor, inputs = Deterministic(), [states(k) for k in range(4)]

    def loss(s):
        s = torch.zeros(len(s), 2)
        for x in inputs:
            s = Decay.apply(s, alpha) + actor(x)
        return (s**2).sum(1).mean()

    result = audit(loss, actor, inputs=inputs[0], surrogate=True)
    assert result.derivative.steps == pytest.approx([alpha**k for k in (3, 2, 1, 0)], rel=2e-2)
    shares = ", ".join(f"{100 * alpha**k:.0f}%" for k in (3, 2, 1, 0))
    assert f"by the action of each step it has {shares}" in str(result).replace("\n", " ")


def test_an_output_that_the_loss_does_not_move_with_is_noted():
    torch.manual_seed(0)
    actor, critic = Deterministic(), nn.Linear(4, 1)
    result = audit(lambda s: -critic(torch.cat([s, actor(s)[:, :1]], 1)).mean(), actor, critic,
                   inputs=states())  # fmt: skip
    notes = [each for each in result.findings if each.kind == "dead rows"]
    assert [each.severity for each in notes] == ["note"] and "Row 1 of " in notes[0].sentence
