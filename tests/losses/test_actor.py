"""An audit of an actor's loss names every planted fault and leaves nothing behind.

Sound losses in the shapes of published code break no law.
"""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from gradlab.errors import InputError
from gradlab.losses.laws import audit
from tests.losses import losses
from tests.losses.bank import sac_actor
from tests.losses.drawn import CODES, Fault, draw, made
from tests.losses.networks import (
    ACTION,
    STATE,
    Deterministic,
    Dynamics,
    Environment,
    Q,
    Value,
    states,
)


def audited(*arguments, **more):
    loss, *networks = arguments
    given = dict(zip(("actor", "critic", "model"), networks, strict=False))
    return audit(loss, kind="actor", **{"inputs": (), **given, **more})


def broken(result):
    """Codes of the laws that are broken, the gravest first."""
    assert not [each for each in result.findings if each.code.endswith(".error")], result
    return [each.code for each in result.findings if each.decision == "fail"]


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

    audited(loss, actor, critic, inputs=states())
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
    arguments = sac_actor()

    def entropy(**more):
        found = audit(**arguments, **more).findings
        return next(each.value for each in found if each.code == "actor.entropy")

    with torch.inference_mode():
        again = entropy()
    assert entropy() == again != entropy(seed=1)


def test_critic_of_a_zero_last_layer_breaks_nothing_and_hides_no_fault():
    actor, critic = Deterministic(), Q()
    nn.init.zeros_(critic.net[2].weight)
    result = audited(lambda s: -critic(s, actor(s)).mean(), actor, critic, inputs=states())
    assert broken(result) == [] and not bool(critic.net[2].weight.any())
    arguments = losses.detached()
    nn.init.zeros_(arguments["critic"].net[2].weight)
    assert broken(audit(**arguments, kind="actor"))[0] == "actor.lost.detached"


def test_truncated_state_shortens_the_gradient_and_breaks_nothing():
    """The state is as wide as the action: that it is one, only the model shows."""
    torch.manual_seed(0)
    actor, model = nn.Linear(2, 2), nn.Bilinear(2, 2, 2)

    def loss(s):
        total = torch.zeros(len(s))
        for t in range(4):
            s = model(s.detach() if t == 2 else s, actor(s))
            total = total + s.square().sum(1)
        return -total.mean()

    assert broken(audited(loss, actor, None, model, inputs=states()[:, :2])) == []


def test_mask_of_termination_is_no_lost_path():
    class Masked(Q):
        def valued(self, s, a, alive):
            return self(s, a)[:, 0] * alive

    actor, model, critic = Deterministic(), Dynamics(), Masked()

    def loss(s):
        s2, r = model.predict(s, actor(s))
        alive = (s2[:, 0].abs() < 0.5).float()
        return -(r + alive * critic.valued(s2, actor(s2), alive)).mean()

    assert broken(audited(loss, actor, critic, model, inputs=states())) == []


class Cube(torch.autograd.Function):
    """s + (Σa)³ with a derivative of its own."""

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


@pytest.mark.parametrize("inline", [True, False])
def test_custom_derivative_is_no_cut(inline):
    """Torch functions do not show what it does."""

    class Model(nn.Module):
        def forward(self, s, a):
            s2: Tensor = Cube.apply(s, a)
            return s2

    actor, model, value = Deterministic(), Model(), Value()

    def loss(s):
        a = actor(s)
        v = value(Cube.apply(s, a) if inline else model(s, a))
        return 0.1 * a.square().mean() - (Cube.apply(v, v) if inline else v).mean()

    assert broken(audited(loss, actor, value, model, inputs=states())) == []


@pytest.mark.parametrize("cut", [True, False])
def test_model_that_calls_the_actor_is_split(cut):
    actor = Deterministic()

    class World(Dynamics):
        def imagine(self, policy, s):
            total = torch.zeros(len(s))
            for _ in range(3):
                a = policy(s)
                s, r = self.predict(s, a.detach() if cut else a)
                total = total + r
            return total

    world = World()
    result = audited(lambda s: -world.imagine(actor, s).mean(), actor, None, world, inputs=states())
    assert broken(result)[:1] == (["actor.gradient.detached"] if cut else [])


def test_backward_in_the_loss_is_refused():
    actor, critic = Deterministic(), Q()

    def loss(s):
        value = -critic(s, actor(s)).mean()
        value.backward()
        return value

    with pytest.raises(InputError, match=r"return it before any backward\(\) or step\(\)"):
        audited(loss, actor, critic, inputs=states())
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

    assert broken(audited(loss, actor, critic, inputs=states())) == []


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    (dict(loss=3), "loss is 3, expected a function"),
    (dict(loss=lambda s: s), "expected a scalar of floats"),
    (dict(loss=lambda s: 1.0), "loss returns a float, expected a scalar tensor"),
    (dict(loss=lambda s: {}), "loss returns no term"),
    (dict(loss=lambda s: {"Q": 2}), "loss returns for 'Q' a int"),
    (dict(loss=lambda: 0), "loss failed (TypeError"),
    (dict(actor=None), "actor is None"),
    (dict(actor=torch.tanh), "actor is a builtin_function_or_method, expected a torch.nn.Module"),
    (dict(actor=Environment()), "expected a torch.nn.Module"),
    (dict(actor=nn.Tanh()), "actor has no parameter that requires a gradient"),
    (dict(actor=[]), "actor is empty"),
    (dict(critic=lambda s, a: s), "critic is a function"),
    (dict(critic=[Q(), "q2"]), "critic 2 is 'q2'"),
    (dict(model=3.0), "model is 3.0"),
    (dict(seed=-1), "seed is -1"),
    (dict(kind="value"), "kind is 'value', expected one of critic, fit, actor, policy, gae"),
    (dict(meant=["colour"]), "meant has colour, expected any of beyond"),
)


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_bad_input_is_refused_in_one_line(change, words):
    actor = Deterministic()
    good = dict(loss=lambda s: actor(s).sum(), actor=actor, inputs=states())
    with pytest.raises(InputError) as caught:
        audit(**{**good, **change})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_networks_in_the_place_of_the_batch_are_told_what_to_write():
    actor, critic = Deterministic(), Q()
    with pytest.raises(InputError, match=r"write audit\(loss, batch, kind='actor', actor=…"):
        audit(lambda s: -critic(s, actor(s)).mean(), actor, critic, inputs=states())


@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_kinks_of_a_clip_are_no_surrogate(clip):
    """PPO a few updates after its data: ratios lie on both sides of the clip."""
    for seed in range(4, 9):
        torch.manual_seed(seed)
        assert broken(audit(**losses.ppo(clip, moved=0.3), kind="actor")) == [], seed


def test_a_value_loss_beside_a_score_is_not_judged():
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

    result = audited(loss, actor, value, inputs=s)
    assert broken(result) == [] and "actor.reached.own_loss" in [x.code for x in result.findings]


def test_a_critic_that_is_normalised_by_its_own_numbers_is_not_missing():
    torch.manual_seed(0)
    actor, critic = Deterministic(), Q()

    def loss(s):
        q = critic(s, actor(s))
        return -((q - q.mean().detach()) / q.std().detach()).mean()

    assert broken(audited(loss, actor, critic, inputs=states())) == []


def test_a_loss_that_draws_from_its_own_generator_is_undecided():
    torch.manual_seed(0)
    actor, critic, own = Deterministic(), Q(), torch.Generator().manual_seed(0)

    def loss(s):
        a = actor(s)
        return -critic(s, a + 0.1 * torch.randn(a.shape, generator=own)).mean()

    result = audited(loss, actor, critic, inputs=states())
    assert result.passed and result.findings[-1].code == "loss.repeats.differs"
    assert "hand it its draws as columns" in str(result)


@pytest.mark.parametrize(("make", "code", "words"), losses.FAULTS)
def test_fault_is_named_first(make, code, words):
    torch.manual_seed(1)
    result = audit(**{"inputs": (), **make()}, kind="actor")
    assert broken(result)[0] == code, result
    first = next(each for each in result.findings if each.decision == "fail")
    assert words in first.sentence and result.headline.endswith(f'"{code.split(".")[1]}"].')


FAULTY = [row for row in losses.THREADS if row[1] not in [each[0] for each in losses.FAULTS]]


@pytest.mark.parametrize(("source", "make", "code"), FAULTY)
def test_a_fault_of_a_public_thread_is_named(source, make, code):
    torch.manual_seed(1)
    assert broken(audit(**make(), kind="actor"))[0] == code, source


OWN = [make for _, make in losses.PUBLISHED if make not in losses.SOUND]


@pytest.mark.parametrize("make", [*losses.SOUND, *OWN], ids=lambda make: make.__name__)
@pytest.mark.sampled(7)
def test_sound_loss_breaks_no_law(make):
    torch.manual_seed(1)
    assert broken(audit(**{"inputs": (), **make()}, kind="actor")) == []


# Of losses drawn from parts, sound ones have no fault and planted ones are named.
FAULTS: tuple[Fault, ...] = ("none", "sample", "normal", "round", "detach", "data", "no_grad")


def _mistakes(fault, seeds):
    """Seeds of which the verdict is wrong."""
    mistaken = []
    for seed in seeds:
        torch.manual_seed(seed)
        found = broken(audit(**made(draw(seed, fault)), kind="actor"))
        # Where the planted fault takes all of the gradient, that is the finding.
        allowed = (f"actor.lost.{CODES.get(fault)}", f"actor.gradient.{CODES.get(fault)}")
        if (found != []) if fault == "none" else (found[:1] not in ([each] for each in allowed)):
            mistaken.append((seed, found))
    return mistaken


@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts(fault):
    assert _mistakes(fault, range(6)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts_in_many(fault):
    assert _mistakes(fault, range(6, 206)) == []


@pytest.mark.parametrize("seed", range(3))
def test_an_action_that_is_scaled_after_its_log_density_is_undecided(seed):
    """log π misses the scale's log, a constant, as in Spinning Up; of no correction that varies."""
    torch.manual_seed(seed)
    codes = []
    for fault in ("", "uncorrected"):
        given = sac_actor(fault)
        policy = given["draw"]

        def scaled(s: Tensor, policy: nn.Module = policy) -> tuple[Tensor, Tensor]:
            action, log_pi = policy(s)
            return 2 * action, log_pi

        found = audit(**given | {"draw": scaled}).findings
        codes += [each.code for each in found if each.code.startswith("actor.density")]
    assert codes == ["actor.density.scaled", "actor.density.other"]
