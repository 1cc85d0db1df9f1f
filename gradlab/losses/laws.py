"""Laws by kind of loss, and the two ways to ask them: `look_at` in a loop, `audit` for a run.

critic    fits values to targets that it computes        fit     fits values to given targets
actor     raises what a critic or model says             policy  weighs recorded actions
gae       a function that computes advantages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.losses.actor import ACTOR, ActorLoss
from gradlab.losses.asking import AskedLoss, Declared, Law, declare, judge
from gradlab.losses.critic import CRITIC, CriticLoss
from gradlab.losses.policy import GAE, POLICY, Advantages, PolicyLoss
from gradlab.provenance import environment
from gradlab.runs.layout import table
from gradlab.runs.run import FindingsRun, header
from gradlab.storage.records import Record
from gradlab.user_code import differentiating

LAWS: Mapping[str, tuple[Law, ...]] = {
    "critic": CRITIC,
    "fit": CRITIC,
    "actor": ACTOR,
    "policy": POLICY,
    "gae": GAE,
}


def asked(loss: Callable[..., Any], batch: Any, declared: Declared, kind: str) -> AskedLoss:
    """The loss of a kind with its batch, checked."""
    validation.word("kind", kind, LAWS)
    declared.check()
    named = {law.name for laws in LAWS.values() for law in laws}
    if unknown := set(declared.meant) - named:
        wanted = ", ".join(sorted(named))
        raise InputError(f"meant has {', '.join(sorted(unknown))}, expected any of {wanted}")
    if kind in ("critic", "fit"):
        return CriticLoss(loss, batch, declared, kind)
    if kind == "gae":
        return cast(AskedLoss, Advantages(loss, declared, batch))
    if declared.actor is None and (kind == "actor" or declared.log_prob is None):
        raise InputError(f"actor is None: a loss of kind {kind!r} needs it, actor=policy")
    return (
        ActorLoss(loss, batch, declared) if kind == "actor" else PolicyLoss(loss, batch, declared)
    )


def _judged(asked: AskedLoss, kind: str) -> tuple[Finding, ...]:
    laws = LAWS[kind]
    if not isinstance(asked, CriticLoss):
        return judge(laws, asked)
    terms = asked.terms(asked.batch)
    named = [asked.of_term(name) for name in terms if name] if len(terms) > 1 else []
    fitted = [each for each in named if isinstance(each, CriticLoss) and each.targeted]
    if not fitted:
        return judge(laws, asked)
    found = judge([law for law in laws if law.whole], asked)
    if any(each.decision in ("fail", "undecided") for each in found[:3]):
        return found
    parts = [law for law in laws if not law.whole]
    return (*found, *(finding for each in fitted for finding in judge(parts, each)))


@differentiating
def look_at(
    loss: Callable[..., Any], batch: Any, declared: Declared, kind: str = "critic"
) -> tuple[Finding, ...]:
    """Ask a loss every law of its kind; nothing of networks, generators or gradients changes.

    Args:
        loss: loss(batch) → a scalar, or a dict of terms. Of kind "gae" the function gae(reward,
            value, ended, last_value, final_value) → advantages [T, E], or of one dict of these; its
            batch is None, or has the shape of its reward.
        batch: a mapping of tensors [B, …], TensorDict or named tuple. House names of columns:
            observation, action, reward, next_observation, terminated, truncated, discount, weight,
            return, value, advantage, old_log_prob, mask; others by `Declared.columns`. Of kind
            "actor" also a tensor, or a tuple of the loss's arguments.
        declared: networks, γ and what else is known (`Declared`).
        kind: "critic", "actor", "policy", "fit", or "gae".

    Returns:
        One finding for each law: code "critic.reward" where it passes, "critic.reward.negated"
        where it fails, `.skipped`, `.meant`, `.error` and further names where it is not judged.
        The order of laws is their weight: the first that fails is the headline. `subject` is the
        term of a dict, or "".

    Raises:
        InputError: a declaration is of the wrong type, or the loss itself fails on the batch.
    """
    subject = asked(loss, batch, declared, kind)
    with subject.prepared():
        return _judged(subject, kind)


@differentiating
def audit(
    loss: Callable[..., Any], batch: Any = None, *old: Any, kind: str | None = None,
    inputs: Any = None, seed: int = 0, **declared: Any,
) -> FindingsRun:  # fmt: skip
    """Ask a loss the laws of its kind: is its target, its sign, its mask, its gradient right?

        assert gradlab.audit(loss, batch, kind="critic", critic=[q1, q2], discount=0.99).passed

    Args:
        loss, batch, kind: as in `gradlab.losses.laws.look_at`.
        old: none; an error says what to write.
        inputs: in the place of batch, of kind "actor": a tensor, or the loss's arguments.
        seed: of every draw in the loss.
        declared: critic, target, actor, discount, …: entries of `gradlab.losses.asking.Declared`.

    Returns:
        A run of kind "audit": `passed` where no law is broken, and `findings`.

    Raises:
        InputError: as of `look_at`, or an entry that is unknown.
    """
    first = next(iter(batch), None) if isinstance(batch, list | tuple) else batch
    if old or isinstance(first, nn.Module):
        raise InputError(
            "batch is a network: write audit(loss, batch, kind='actor', actor=…, critic=…, model=…)"
        )
    kind = "actor" if kind is None and inputs is not None else kind
    if kind is None:
        raise validation.expected("kind", kind, f"one of {', '.join(LAWS)}")
    known = declare("audit", seed=seed, **declared)
    found = look_at(loss, batch if inputs is None else inputs, known, kind)
    config = {
        "kind": kind, "seed": seed, "discount": known.discount, "meant": list(known.meant)
    }  # fmt: skip
    groups = {"verdict": table(found, Finding)}
    return FindingsRun(Record(header("audit", config, environment()), groups))
