"""Laws name the fault that is planted, leave sound losses alone, and the loss as it was.

Their numbers are those that were planted: γ, shares of entropy, scales. Conformance is exact.
"""

import math
import random
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.findings import CODES
from gradlab.losses import critic, laws
from gradlab.losses.asking import Declared
from gradlab.losses.critic import CriticLoss
from tests.losses import bank, libraries
from tests.losses.published import GAMMA, LOSSES

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")


def audited(arguments, seed=0, **more):
    torch.manual_seed(seed)
    made = arguments() if callable(arguments) else arguments
    return gradlab.audit(**made | more)


def broken(run):
    assert not [each for each in run.findings if each.code.endswith(".error")], run
    assert all(each.code in CODES for each in run.findings)
    return [each.code for each in run.findings if each.decision == "fail"]


def finding(run, code):
    (found,) = [each for each in run.findings if each.code.startswith(code)]
    return found


@pytest.mark.parametrize(("name", "make"), bank.SOUND, ids=[row[0] for row in bank.SOUND])
def test_sound_loss_breaks_no_law_and_few_are_undecided(name, make):
    run = audited(make)
    assert broken(run) == [], run
    assert sum(each.decision == "undecided" for each in run.findings) <= 3


@pytest.mark.parametrize(("name", "make", "code"), bank.FAULTS, ids=[row[0] for row in bank.FAULTS])
def test_fault_is_named_first(name, make, code):
    run = audited(make)
    assert [each.startswith(code) for each in broken(run)][:1] == [True], run
    assert "or declare meant=" in run.headline and not run.passed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_those_of_the_loss(dtype):
    given = bank.td("typo")
    for module in (*given["critic"], *given["target"], given["actor"]):
        module.to(dtype)
    run = audited(given | {"batch": bank.batch(dtype=dtype)})
    found = finding(run, "critic.discount.other")
    assert found.value == pytest.approx(0.9, abs=1e-7 if dtype == torch.float64 else 2e-3)
    assert found.threshold == pytest.approx(bank.GAMMA)


def test_target_is_that_of_the_formula():
    """y* of the root is r + γ (1 − d) min Q', computed here."""
    torch.manual_seed(0)
    given = bank.td(error=F.smooth_l1_loss)
    names = ("critic", "target", "actor", "discount")
    asked = CriticLoss(given["loss"], given["batch"], Declared(**{k: given[k] for k in names}))
    b = asked.batch
    torch.manual_seed(0)  # as in every call of the loss
    with torch.no_grad():
        a2, _ = given["actor"](b["next_observation"])
        v = torch.cat([net(b["next_observation"], a2) for net in given["target"]], 1).amin(1)
    y = b["reward"][:, 0] + bank.GAMMA * (1 - b["terminated"][:, 0]) * v
    torch.testing.assert_close(asked.y, y.expand(2, -1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [bank.td, bank.crossq, bank.sac_actor, bank.ppo])
def test_nothing_changes(make):
    torch.manual_seed(0)
    given = make()
    roles = ("critic", "target", "actor")
    networks = [
        m
        for role in roles
        for m in (given.get(role) if isinstance(given.get(role), list) else [given.get(role)])
        if m is not None
    ]
    for p in (p for m in networks for p in m.parameters()):
        p.grad = torch.ones_like(p)
    before = [x.clone() for m in networks for x in m.state_dict().values()]
    columns = {k: x.clone() for k, x in given["batch"].items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    gradlab.audit(**given)
    after = [x for m in networks for x in m.state_dict().values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert all((p.grad == 1).all() for m in networks for p in m.parameters())
    assert all(torch.equal(x, columns[k]) for k, x in given["batch"].items())
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert not any(m._forward_hooks for m in networks)


def test_a_graph_that_is_open_can_still_go_backward():
    """Buffers are put back so that BatchNorm's saved tensors stay valid."""
    torch.manual_seed(0)
    given = bank.crossq()
    value = given["loss"](given["batch"])
    gradlab.audit(**given)
    value.backward()


def test_what_a_law_needs_is_the_line_to_write():
    given = bank.td(entropy=1.0)
    del given["discount"], given["temperature"]
    run = audited(given)
    assert finding(run, "critic.discount").said == "Needs discount=0.99."
    assert finding(run, "critic.entropy").decision == "skipped"
    assert all(each.decision == "undecided" for each in run.findings if "level.e" in each.code)


def test_what_is_meant_is_not_asked():
    run = audited(lambda: bank.td("maximised"), meant=["descends"])
    assert run.passed and finding(run, "critic.descends").code == "critic.descends.meant"


def test_terms_are_asked_one_by_one():
    found = [each.subject for each in audited(bank.cql).findings if each.code == "critic.reward"]
    assert found == ["td"]


def test_a_law_that_raises_is_undecided(monkeypatch):
    def raises(asked):
        raise ZeroDivisionError("by nothing")

    row = critic.Law("critic.reward", (), raises)
    monkeypatch.setitem(laws.LAWS, "critic", (row, *critic.CRITIC[:1]))
    (first, second) = audited(bank.td).findings
    assert (first.code, first.decision) == ("critic.reward.error", "undecided")
    assert "ZeroDivisionError: by nothing" in first.sentence and second.decision == "pass"


def test_every_law_has_its_words():
    codes = {law.code for table in laws.LAWS.values() for law in table}
    assert codes <= CODES.keys() and all(CODES[code].sentence for code in codes)


# Bad input, and what loops bring along.


def test_named_tuples_and_other_names_of_columns():
    Samples = namedtuple("Samples", "obs act rew next_obs done")
    given = bank.td("squared")
    inner, b = given["loss"], given["batch"]
    house = ("observation", "action", "reward", "next_observation", "terminated")
    given["loss"] = lambda s: inner(b | dict(zip(house, s, strict=True)))
    batch = Samples(*(b[name] for name in house))
    columns = dict(zip(house, Samples._fields, strict=True))
    run = audited(given | {"batch": batch, "columns": columns})
    assert broken(run) == ["critic.discount.squared"]
    with pytest.raises(InputError, match="columns has 'reward': 'r': the batch has no such column"):
        audited(given | {"batch": batch, "columns": {"reward": "r"}})


def test_torchrl_losses_as_they_are_shipped():
    tensordict = pytest.importorskip("tensordict")
    objectives = pytest.importorskip("torchrl.objectives")
    from torchrl.modules import ValueOperator

    torch.manual_seed(0)
    policy = nn.Sequential(bank.mlp(bank.STATE, bank.ACTION), nn.Tanh())
    act = tensordict.nn.TensorDictModule(policy, in_keys=["observation"], out_keys=["action"])
    q = ValueOperator(bank.Q(), in_keys=["observation", "action"])
    loss = objectives.DDPGLoss(act, q)
    loss.make_value_estimator(gamma=0.9)
    b = bank.batch()
    ends = b["terminated"].bool()
    after = {"observation": b["next_observation"], "reward": b["reward"]}
    after |= {"done": ends, "terminated": ends}
    given = {"observation": b["observation"], "action": b["action"], "next": after}
    names = {"reward": "reward", "next_observation": "observation", "terminated": "terminated"}
    arguments = dict(
        loss=lambda td: loss(td)["loss_value"], batch=tensordict.TensorDict(given, [48]),
        kind="critic", critic=q.module, columns={k: ("next", v) for k, v in names.items()},
    )  # fmt: skip
    assert broken(audited(arguments, discount=0.9)) == []
    assert broken(audited(arguments, discount=0.99)) == ["critic.discount.other"]


def test_an_actor_inside_of_vmap_is_asked():
    """TorchRL's SAC."""
    tensordict = pytest.importorskip("tensordict")
    objectives = pytest.importorskip("torchrl.objectives")
    from torchrl.data import Bounded
    from torchrl.modules import NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator

    torch.manual_seed(0)
    net = nn.Sequential(bank.mlp(bank.STATE, 2 * bank.ACTION), NormalParamExtractor())
    keys = ["loc", "scale"]
    of = tensordict.nn.TensorDictModule(net, in_keys=["observation"], out_keys=keys)
    actor = ProbabilisticActor(
        of, in_keys=keys, out_keys=["action"], distribution_class=TanhNormal, return_log_prob=True
    )
    q = ValueOperator(bank.Q(), in_keys=["observation", "action"])
    loss = objectives.SACLoss(actor, q, action_spec=Bounded(-1, 1, (bank.ACTION,)))
    batch = tensordict.TensorDict({"observation": bank.batch()["observation"]}, [48])
    given = dict(batch=batch, kind="actor", actor=actor, critic=q.module)
    run = audited(given | {"loss": lambda td: loss.actor_loss(td)[0].mean()})
    assert broken(run) == [] and sum(each.decision == "pass" for each in run.findings) > 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(kind=None), "kind is None, expected one of critic"),
        (dict(kind="actor", actor=None), "actor is None: a loss of kind 'actor' needs it"),
        (dict(batch=torch.ones(3)), "expected a mapping of columns, or a named tuple"),
        (dict(batch={}), "batch has no column that is a tensor with rows"),
        (dict(critic=[torch.tanh]), "critic 1 is a builtin_function_or_method, expected a torch"),
        (dict(discount=1.5), "discount is 1.5, expected a number in [0, 1]"),
        (dict(loss=lambda b: b["weights"]), "loss failed (KeyError: 'weights'"),
        (
            dict(loss=lambda b: {"td": b["reward"]}),
            "loss returns for 'td' a tensor of shape (48, 1)",
        ),
        (dict(meant="colour"), "meant has colour, expected any of beyond"),
        (dict(temperature=0.1), "temperature is 0.1, expected the tensor log α"),
        (dict(surrogate=True), "audit has surrogate, expected any of actor, clip"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, words):
    with pytest.raises(InputError) as caught:
        audited(bank.td, **change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "of",
    [
        lambda loss: torch.compile(loss),
        lambda loss: lambda b: 65536.0 * loss(b),  # AMP's scaler
        lambda loss: lambda b: (loss(b), {"q": 0.0}),
    ],
)
def test_compiled_scaled_and_accompanied_losses_are_asked(of):
    torch.manual_seed(0)
    given = bank.td("squared")
    assert broken(audited(given | {"loss": of(given["loss"])})) == ["critic.discount.squared"]


def test_distributed_wrappers_are_asked():
    given = bank.td("squared")
    wrapped = [nn.DataParallel(net) for net in given["critic"]]
    targets = given["target"]

    def loss(b):
        with torch.no_grad():
            a2 = given["actor"](b["next_observation"])[0]
            y = b["reward"] + 0.5 * (1 - b["terminated"]) * targets[0](b["next_observation"], a2)
        return sum(F.mse_loss(q(b["observation"], b["action"]), y) for q in wrapped)

    run = audited(given | {"loss": loss, "critic": wrapped})
    assert finding(run, "critic.discount").value == pytest.approx(0.5, abs=1e-3)


def test_own_generator_low_precision_and_other_methods_are_undecided():
    given, own = bank.td(), torch.Generator().manual_seed(0)
    inner = given["loss"]
    run = audited(given | {"loss": lambda b: inner(b) * (1 + torch.rand((), generator=own))})
    assert run.passed and run.findings[-1].code == "loss.repeats.differs"

    def half(b):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return inner(b)

    assert audited(given | {"loss": half}).findings[-1].code == "critic.precision.half"
    q = given["critic"][0]
    fitted = lambda b: F.mse_loss(q.net(torch.cat([b["observation"], b["action"]], 1)), b["reward"])  # noqa: E731
    run = audited(given | {"loss": fitted, "critic": q, "target": None})
    assert finding(run, "critic.predictions").code == "critic.predictions.silent"


def test_a_loss_with_state_is_undecided():
    given, calls = bank.td(), []
    inner = given["loss"]

    def loss(b):
        calls.append(1)
        return inner(b) + 0.1 * len(calls)

    run = audited(given | {"loss": loss})
    assert run.passed and run.findings[-1].code == "loss.repeats.differs"


def test_columns_that_the_loss_wants_and_rows_that_are_missing_are_named():
    given = bank.td()
    inner = given["loss"]
    words = r"KeyError: 'priority'.*add it to the batch, which has observation, action, reward"
    with pytest.raises(InputError, match=words):
        audited(given | {"loss": lambda b: inner(b) * b["priority"]})
    few = given["batch"] | {"terminated": torch.zeros(3)}
    with pytest.raises(InputError, match="batch has 3 rows of 'terminated', expected 48"):
        audited(given | {"batch": few})
    more = {"extra": torch.ones(3), **given["batch"]}
    assert broken(audited(given | {"batch": more})) == []


def test_rows_that_are_mixed_on_purpose_are_declared():
    given = bank.td("standardised")
    run = audited(given)
    assert broken(run)[0] == "critic.rows.mixed" and 'declare meant=["rows"]' in run.headline
    run = audited(given, meant=["rows"])
    assert run.passed, run
    assert finding(run, "critic.discount").code == "critic.discount.skipped"


def test_a_loss_on_another_device_is_told_where_to_put_the_batch():
    given = bank.td()

    def loss(b):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found cuda:0 and cpu"
        )

    with pytest.raises(InputError, match="move the batch to the networks' device"):
        audited(given | {"loss": loss})


def test_networks_that_are_called_by_other_methods_are_not_called_unused():
    class Valued(bank.Q):
        def value(self, s, a):
            return self.net(torch.cat([s, a], 1))

    q, target, policy = Valued(), Valued(), bank.Policy()

    def loss(b, target=target):
        with torch.no_grad():
            v = target.value(b["next_observation"], policy(b["next_observation"])[0])
            y = b["reward"] + bank.GAMMA * (1 - b["terminated"]) * v
        return F.mse_loss(q.value(b["observation"], b["action"]), y)

    given = dict(loss=loss, batch=bank.batch(), kind="critic", critic=q, target=target)
    run = audited(given)
    assert run.passed and finding(run, "critic.predictions").code == "critic.predictions.silent"
    run = audited(given | {"target": bank.Q()})
    assert broken(run) == ["critic.targets.unused"]


@pytest.mark.parametrize("returns", ["pair", "distribution", "dict"])
@pytest.mark.parametrize("detached", [False, True])
def test_actors_may_return_what_they_like(returns, detached):
    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.log_std = bank.mlp(3, 2), nn.Parameter(torch.zeros(2))

        def forward(self, s):
            policy = torch.distributions.Normal(self.net(s), self.log_std.exp())
            if returns == "distribution":
                return policy
            a = policy.rsample()
            found = {"action": a, "log_prob": policy.log_prob(a).sum(1, keepdim=True)}
            return found if returns == "dict" else tuple(found.values())

    def acted(s):
        out = actor(s)
        if returns == "distribution":
            a = out.rsample()
            return a, out.log_prob(a).sum(1, keepdim=True)
        return tuple(out.values()) if returns == "dict" else out

    actor, q = Actor(), bank.Q()

    def loss(b):
        a, log_pi = acted(b["observation"])
        return (0.2 * log_pi - q(b["observation"], a.detach() if detached else a)).mean()

    run = audited(dict(loss=loss, batch=bank.batch(), kind="actor", actor=actor, critic=q))
    assert broken(run)[:1] == (["actor.lost.detached"] if detached else [])


@pytest.mark.parametrize("fault", ["", "typo"])
def test_critics_of_quantiles_are_asked(fault):
    run = audited(lambda: libraries.tqc("squared" if fault else ""))
    want = bank.GAMMA**2 if fault else bank.GAMMA
    assert finding(run, "critic.discount").value == pytest.approx(want, abs=2e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_policy_that_is_not_declared_is_what_its_log_prob_is_made_of(sign):
    """Advantages by tokens [T, B], a critic beside, and a bias nobody declared."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 4))
    value = nn.Linear(3, 1)
    x, a = torch.randn(8, 2, 3), torch.randint(4, (8, 2))
    batch = {"observation": x, "action": a, "advantage": torch.randn(8, 2)}
    batch["return"] = torch.randn(8, 2)

    def log_prob(b):
        return torch.distributions.Categorical(logits=policy(b["observation"])).log_prob(
            b["action"]
        )

    def loss(b):
        error = b["return"] - value(b["observation"]).squeeze(-1)
        return -sign * (log_prob(b) * b["advantage"]).mean() + error.square().mean()

    run = gradlab.audit(loss, batch, kind="policy", critic=value, log_prob=log_prob)
    assert run.passed == (sign > 0)
    assert ("policy.weights.negated" in {each.code for each in run.findings}) == (sign < 0)


@pytest.mark.parametrize(("T", "fault"), [(7, ""), (7, "late"), (400, ""), (400, "late")])
def test_advantages_of_a_batch_are_asked_in_its_own_shape(T, fault):
    """As a loop has them: sizes of its own, one dict, no last value at time limits."""
    N, gamma, trace, calls = 3, 0.9, 0.8, []
    batch = {name: torch.randn(T, N) for name in ("reward", "value")}
    batch |= {"terminated": torch.zeros(T, N), "last_value": torch.randn(N)}

    def gae(b):
        calls.append(b.get("truncated"))
        found, after = torch.zeros(T, N), torch.zeros(N)
        for t in reversed(range(T)):
            at = min(t + 1, T - 1) if fault else t
            going = 1 - b["terminated"][at]
            following = b["value"][t + 1] if t + 1 < T else b["last_value"]
            delta = b["reward"][t] + gamma * going * following - b["value"][t]
            found[t] = after = delta + gamma * trace * going * after
        return found

    run = gradlab.audit(gae, batch, kind="gae", discount=gamma, trace=trace)
    codes = {each.code for each in run.findings}
    assert len(calls) < 100  # however long
    assert run.passed == (not fault) and "gae.time_limits.skipped" in codes
    assert ("gae.ends.early" in codes) == bool(fault)


def test_a_loss_that_is_not_finite_names_operation_line_and_rows():
    given = bank.td()
    inner = given["loss"]
    run = audited(given | {"loss": lambda b: inner(b) + torch.log(b["reward"]).mean()})
    assert broken(run) == ["loss.finite.not_finite"]
    rows = int((given["batch"]["reward"] < 0).sum())
    assert "from log, test_laws.py, line" in run.headline
    assert rows > 3 and ", … of 48)" in run.headline


def test_a_run_is_saved_and_read(tmp_path):
    run = audited(lambda: bank.td("squared"))
    again = gradlab.load(run.save(tmp_path / "audit.h5"))
    assert again.findings == run.findings or str(again) == str(run)
    assert not again.passed and again.headline == run.headline


def test_the_page_of_an_audit_has_what_is_broken_first_and_every_law_as_a_row(tmp_path):
    planted = ((bank.td("squared"), "none", "critic.discount.squared"), (bank.td(), "act", ""))
    for given, light, first in planted:
        run = audited(given)
        shown, page = run.recommendation, gradlab.report(run.save(tmp_path / f"{light}.h5"))
        assert shown.light == light and (broken(run) or [""])[0] == first
        text = page.read_text()
        assert shown.field("passed") in text
        assert text.count("<tr class=") == len(run.findings)
        assert (shown.fields[1].name == "next") == (light == "none")
    run = gradlab.conform(lambda p, r: (p * r).mean(), "bandit")
    assert run.recommendation.light == "none"
    assert "conformance" in gradlab.report(run.save(tmp_path / "conformance.h5")).read_text()


# Conformance.


@pytest.mark.parametrize(("name", "source", "world", "loss", "said"), LOSSES)
def test_published_loss_is_what_its_source_says(name, source, world, loss, said):
    run = gradlab.conform(loss, world)
    assert run.findings[0].code == f"conform.{said}", (name, str(run))
    assert run.passed == (said != "zero")
    assert gradlab.conform(loss, world, exact=True).passed == (said == "exact")


@pytest.mark.parametrize(
    ("world", "loss", "code"),
    [
        ("bandit", lambda p, r: (p * r).mean(), "downhill"),
        ("bandit", lambda p, r: -(p * (r - r.mean())[:, None]).mean(), "zero"),
        ("bandit", lambda p, r: -(p * (r - r.mean()).roll(1)).mean(), "downhill"),
        ("bandit", lambda p, r: -F.logsigmoid(p[r.argmin()] - p[r.argmax()]), "downhill"),
        ("bandit", lambda p, r: -(p * r.clamp(-0.3, 0.3)).mean(), "biased"),
        ("tree", lambda p, r: -(p * r).sum(1).mean(), "biased"),
        ("tree", lambda p, r: (p * r.sum(1, keepdim=True)).sum(1).mean(), "downhill"),
    ],
)
def test_wrong_gradient_is_no_exact_one(world, loss, code):
    run = gradlab.conform(loss, world)
    assert run.findings[0].code == f"conform.{code}", run
    assert run.passed == (code == "biased")


def test_terms_of_a_tree_are_the_weights_of_the_loss():
    """Each step is weighed by its own reward: of γ r1 nothing reaches the first."""
    run = gradlab.conform(lambda p, r: -(p * r).sum(1).mean(), "tree")
    found = {each.subject: each.value for each in run.findings if each.code == "conform.term"}
    expected = {"π0 r0": 1, "π0 γ r1": 0, "π1 γ r1": 1 / GAMMA, "π1 r0": 0}
    assert found == pytest.approx(expected, abs=1e-9)


def test_mean_of_a_group_takes_its_share():
    """With its own reward in the baseline 1 − 1/G is left, of G = 4."""
    run = gradlab.conform(lambda p, r: -(p * (r - r.mean())).mean(), "bandit")
    assert run.findings[0].value == pytest.approx(1 - 1 / 4) and math.isnan(run.findings[0].low)


def test_bad_losses_of_conform_are_refused():
    for loss, words in (
        (3, "loss is 3, expected a function"),
        (lambda p, r: p, "loss returns a Tensor of shape"),
        (lambda p, r: p @ r[:2], "loss failed"),
    ):
        with pytest.raises(InputError, match=words):
            gradlab.conform(loss, "bandit")
    with pytest.raises(InputError, match="kind is 'maze', expected one of bandit, penalty, tree"):
        gradlab.conform(lambda p, r: p.sum(), "maze")
