"""An audit names every planted fault, leaves nothing behind and survives what code does.

One step's weight at two lengths of a segment: 1 where it is summed, L / L′ where averaged.

Gradients by path are those of the parts of the loss; closed gates are exact. The loss itself
against its gradient: surrogates are known, by how much, and by cause. Sound losses have none.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from gradlab.errors import InputError
from gradlab.tools.audit.compute import audit
from gradlab.tools.audit.evaluation import audited, by_path, evaluated
from tests.auditing import losses
from tests.auditing.drawn import KINDS, Fault, draw, made
from tests.auditing.networks import (
    ACTION,
    STATE,
    Decay,
    Deterministic,
    Dynamics,
    Environment,
    Gaussian,
    Q,
    Value,
    dreamer,
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
    arguments = losses.sac_cleanrl()
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
    arguments = losses.detached()
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


@pytest.mark.parametrize("make", [losses.maac, losses.shac, dreamer])
def test_sound_segments_scale_alike(make):
    torch.manual_seed(0)
    result = audit(**make(), lengths=(6, 12), directions=0)
    assert result.passed, result
    assert {scale.role for scale in result.scales} >= {"model"}


Part = Callable[[Tensor], Tensor]


def _apart(part, actor):
    """Plain autograd of one part of the loss; zeros where it has no path."""
    parameters = list(actor.parameters())
    gradients = torch.autograd.grad(part(states().double()), parameters, allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]


def _known():
    """A loss of four parts, one for each path."""
    actor, model, critic, value = Deterministic(), Dynamics(), Q(), Value()
    for module in (actor, model, critic, value):
        module.double()

    def through_both(s):
        return value(model.predict(s, actor(s))[0]).mean()

    parts: dict[str, Part] = {
        "model": lambda s: model.predict(s, actor(s))[1].pow(2).mean(),
        "critic": lambda s: critic(s, actor(s)).sin().mean(),
        "model and critic": through_both,
        "neither": lambda s: 0.1 * actor(s).pow(2).mean(),
    }
    return actor, model, critic, value, parts


def test_gradient_by_path_is_that_of_the_part_with_that_path():
    torch.manual_seed(0)
    actor, model, critic, value, parts = _known()
    given = audited(
        lambda s: sum(part(s) for part in parts.values()), actor, [critic, value], model,
        states().double(), None, None, 0,
    )  # fmt: skip
    evaluation = evaluated(given)
    paths = by_path(evaluation.loss, evaluation.theta, evaluation.calls)
    for path, part in parts.items():
        for got, expected in zip(paths[path], _apart(part, actor), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("missing", ["model", "critic", "model and critic", "neither"])
def test_path_that_the_loss_has_not_is_exactly_zero(missing):
    torch.manual_seed(0)
    actor, model, critic, value, parts = _known()
    rest = [part for path, part in parts.items() if path != missing]
    result = audit(
        lambda s: sum(part(s) for part in rest), actor, [critic, value], model,
        inputs=states().double(),
    )  # fmt: skip
    assert all(norm == 0 for norm in result.norms["loss"].get(missing, [0]))
    table = result.table()
    assert (table[table.path != missing].groupby("path").norm.sum() > 0).all()


@pytest.mark.parametrize("make", losses.SOUND, ids=lambda make: make.__name__)
def test_paths_sum_to_the_gradient_of_the_loss(make):
    torch.manual_seed(1)
    arguments = make()
    inputs = arguments.pop("inputs", ())
    given = audited(
        arguments["loss"], arguments["actor"], arguments.get("critic"), arguments.get("model"),
        inputs, None, None, 0,
    )  # fmt: skip
    evaluation = evaluated(given)
    paths = by_path(evaluation.loss, evaluation.theta, evaluation.calls)
    torch.manual_seed(0)
    value = given.loss(*given.inputs)
    torch.testing.assert_close(evaluation.loss.to(value), value)
    expected = torch.autograd.grad(value, evaluation.theta, allow_unused=True)
    for k, g in enumerate(expected):
        total = torch.stack([values[k] for values in paths.values()]).sum(0)
        torch.testing.assert_close(total, torch.zeros_like(total) if g is None else g)


def surrogates(result):
    return [each.severity for each in result.findings if each.kind == "surrogate"]


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
        arguments = losses.ppo(clip, moved=0.3)
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


@pytest.mark.parametrize(("make", "kind", "words"), losses.FAULTS)
def test_fault_is_the_one_finding_that_is_wrong(make, kind, words):
    torch.manual_seed(1)
    result = audit(**make())
    wrong = [finding for finding in result.findings if finding.severity == "wrong"]
    assert [finding.kind for finding in wrong] == [kind], result
    assert words in wrong[0].sentence
    assert not result.passed


FAULTY = [row for row in losses.THREADS if row[1] not in [each[0] for each in losses.FAULTS]]


@pytest.mark.parametrize(("source", "make", "kind"), FAULTY)
def test_a_fault_of_a_public_thread_is_named(source, make, kind):
    torch.manual_seed(1)
    result = audit(**make())
    assert not result.passed and kind in {finding.kind for finding in result.findings}, source


SCORED = ("reinforce", "score_through_model", "svg", "gumbel")  # and surrogates on purpose
WHOLE = ("sac_cleanrl", "sac_sb3", "ddpg", "td3", "maac", "shac", "ppo")
OWN = [make for _, make in losses.PUBLISHED if make not in losses.SOUND]


@pytest.mark.parametrize("make", [*losses.SOUND, *OWN], ids=lambda make: make.__name__)
@pytest.mark.sampled(7)
def test_sound_loss_has_no_finding_but_gradients_left_in_the_critic(make):
    torch.manual_seed(1)
    result = audit(**make())
    assert result.passed, result
    if make not in OWN:
        assert {finding.kind for finding in result.findings} <= {"left behind", "dead rows"}, result
    if make.__name__ in WHOLE + SCORED:
        assert result.derivative.surrogate == (make.__name__ in SCORED)


# Of losses drawn from parts, sound ones have no fault and planted ones are named.


FAULTS: tuple[Fault, ...] = ("none", "sample", "normal", "round", "detach", "data", "no_grad")


def _mistakes(fault, seeds):
    """Seeds of which the verdict is wrong."""
    mistaken = []
    for seed in seeds:
        torch.manual_seed(seed)
        result = audit(**made(draw(seed, fault)), directions=0)
        wrong = [finding.kind for finding in result.findings if finding.severity == "wrong"]
        # Where the planted fault takes all of the gradient, that is the finding.
        allowed = [[]] if fault == "none" else [[KINDS[fault]], ["dead actor"]]
        if wrong not in allowed:
            mistaken.append(seed)
    return mistaken


@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts(fault):
    assert _mistakes(fault, range(6)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts_in_many(fault):
    assert _mistakes(fault, range(6, 206)) == []
