"""Alarms from the steps that optimisers make, of the policy and of its critic.

    does not move   a tensor has a gradient, and no step that was looked at changed a bit of it
    rate            |Δθ| / |θ| > 2% on average at a learning rate of 0.01 or more; the longest that
                    was seen on defaults is 0.8% (74 runs, `analyses.third_party`)

The first is exact; so is the size of the second, which has no rate.
"""

from __future__ import annotations

import numpy as np

from gradlab.probe.alarms.evidence import Alarm, Look, listed

FEWEST = 2  # steps that were looked at
LONG = 0.02  # of θ in one step
HIGH = 0.01  # a rate below which steps are long only where θ is nearly 0


def actor_still(look: Look) -> Alarm | None:
    """Tensors that have a gradient and stay exactly where they are."""
    stepped, looked = int(look.new.get("stepped", 0)), int(look.new.get("looked", 0))
    if stepped < FEWEST or "still" not in look.new:
        return None
    still, zero = (np.asarray(look.new[name], dtype=np.float64) for name in ("still", "zero"))
    known = np.isfinite(still) & (zero <= looked / 2)
    stuck = known & (still >= stepped)
    if not stuck.any():
        return None
    where, rate = listed(stuck, look.names), _rate(look.at("learning_rate"))
    if (stuck == known).all():
        return Alarm(
            "actor does not move",
            f"none of {stepped} steps changed the policy, which has a gradient (norm "
            f"{look.at('grad_norm'):.2g} before it is clipped){rate}: look at the rate, the clip, "
            f"and whose parameters the optimiser holds",
        )
    return Alarm(
        "actor moves in part",
        f"{where} had a gradient, and none of {stepped} steps changed them: give the optimiser "
        f"all of policy.parameters(), or say requires_grad_(False) where they are meant to stay",
    )


def actor_thawed(look: Look) -> Alarm | None:
    """All tensors frozen but one."""
    trained = np.isfinite(np.asarray(look.new.get("still", ()), dtype=np.float64))
    if len(trained) < 3 or trained.sum() != 1:
        return None
    return Alarm(
        "actor moves in part",
        f"of {len(trained)} tensors only {listed(trained, look.names)} is trained, all others are "
        f"frozen (requires_grad is False): thaw them, unless that is meant",
    )


def thrown_away(passes: int) -> Alarm:
    """Gradients that were made and cleared again without a step."""
    return Alarm(
        "actor does not move",
        f"{passes} backward passes began without a gradient, and the optimiser has not made one "
        f"step: call its step(), or give the probe the optimiser that steps this policy",
    )


def critic_still(look: Look) -> Alarm | None:
    """A critic that none of its optimiser's steps has changed."""
    steps = look.at("critic_steps")
    if steps == 0:
        words = "its optimiser made no step"
    elif look.at("critic_stepped") >= FEWEST and (
        look.at("critic_still") >= look.at("critic_stepped")
    ):
        norm = look.at("critic_norm")
        words = f"none of {int(look.at('critic_stepped'))} steps changed one of its tensors ("
        words += "no gradient arrives" if norm == 0 else f"gradient norm {norm:.2g}"
        words += f"{_rate(look.at('critic_rate'))})"
    else:
        return None
    return Alarm(
        "critic does not move",
        f"in {int(look.at('looked'))} updates of the policy {words}: look at its rate, and whether "
        f"its optimiser holds the critic or its target",
    )


def actor_rate(look: Look) -> Alarm | None:
    """Steps that are far too long for the policy."""
    return _too_long(look, "update_ratio", "learning_rate", "learning rate too large", "policy")


def critic_rate(look: Look) -> Alarm | None:
    """The same of the critic."""
    kind = "critic's learning rate too large"
    return _too_long(look, "critic_ratio", "critic_rate", kind, "critic")


def _too_long(look: Look, ratio: str, rate: str, kind: str, whose: str) -> Alarm | None:
    size = look.at(ratio)
    if not (size > LONG and look.at(rate) >= HIGH):
        return None
    return Alarm(
        kind,
        f"a step moves the {whose} by {size:.1%} of its size on average{_rate(look.at(rate))}; "
        f"usual rates move it by 0.01% to 1%: divide it by ten or more",
    )


def _rate(rate: float) -> str:
    return f" at the learning rate {rate:g}" if np.isfinite(rate) else ""
