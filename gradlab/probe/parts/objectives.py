"""Does the actor's own step raise what it is to raise, on its own batch and noise?

    Δ E[Q(s, a) − α log π(a|s)],   a = π(s), or the squashed Gaussian's with the ε that was drawn

before and after the step, with copies of policy and critics: nothing of the loop is called. ε
follows from the action that the critic was given. The gradient that the loss sent to mean and
log σ is x ∂Q + y ∂log π to rounding: α = |y/x|, and a look counts as a rise only where x < 0 and,
where it can be seen, y > 0: else a rise of the entropy would hide a fall of Q. A sound loop rises
in .60 to 1 of the looks, one with the wrong sign in 0 to .16. Which of both it is decides Page's
test (Biometrika 41, 1954), as soon as the newest looks are e¹⁰ times likelier under a wrong sign:

    S ← max(S + log p(look | .16) − log p(look | .60), 0) > 10      14 falls in a row, or 25 at .16

A look in which the loss itself fits to 1% and has the wrong sign counts `_FITTED`, four falls: a
wrong sign of the entropy drives actions to their limits, where nothing is seen, in 100 updates.

Of a loss through a model, Σ γᵗ r + γᴴ V(s_H), the values alone are: dL/dV ≥ 0 everywhere lowers V,
and ≤ 0 raises it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import log
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from gradlab.probe.alarms.evidence import DENSITY, DESCENT, UNFOLLOWED
from gradlab.probe.isolation import undisturbed
from gradlab.probe.parts.loss_weights import constant_weights, likelihood_weights
from gradlab.probe.parts.passes import (
    ROWS,
    Action,
    Heard,
    Pass,
    PolicyCall,
    Twin,
    action_of,
    alone,
    gaussian_action,
    heard_by,
    joined,
    noise_of,
    opened,
    outputs_by_row,
    several,
    squashed,
    squashes,
)
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.policy_calls import graded, passing

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Ring

REFIT = 4  # looks to one in which the loss's terms are weighed, which costs as much again
LOOKS, LEAST = 50, 0.35  # fewer than this share of so many looks positive: the sign is wrong
SOUND, WRONG, SURE = 0.6, 0.16, 10.0  # shares of looks, and log of their odds: the same, sooner
_FITTED = 3.0  # log odds of a wrong sign that is read from the loss: no one fit is enough
_EARLY = 25  # looks, before which nothing is called sound
FITS, HALF = 3, 0.5  # of the terms of a loss, and how many of them are enough
_STEPS = 256  # of one rollout
_FLAT, _FEW_ROWS = 0.999, 16  # share of an action's limit; rows below it that a fit needs
_UNEXPLAINED = 0.1  # of the gradient, above which the loss has other terms
_EXACT = 0.01  # of it, below which it has none
_NO_DENSITY = 1e-5  # of it, below which log π is not in it
UNROWED = "which axis of the critic's output is the batch is not known"
# x, y, and the shares of the gradient that they leave, and that log π has.
_Weights = tuple[float, float, float, float]
_Pick = Callable[[Sequence[Tensor]], Tensor]  # Q that a loss follows, [N], of outputs [N, K]
CHANGING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
_NO_CALL = (
    "the loop's critic is not called at the policy's actions with a gradient: where its actor "
    "follows one, probe.networks(critic=…)"
)
_NOT_CALLED = (
    "no critic that was handed over is called at the policy's actions with a gradient, nor at "
    "states that follow from them: through a model, a detached action is one cause"
)
_ASIDE = (
    "the actor's loss raises the critic's value of other actions than the policy's, which sends "
    "it nothing: is Q evaluated at the policy's action, neither detached nor drawn by sample() "
    "where rsample() is meant?"
)
_FROZEN = (
    "critics without gradients are called at the policy's states, none of them at its actions: is "
    "Q evaluated at the policy's action, neither detached nor drawn by sample()?"
)
_OF_ONE = (
    "the actor's loss follows the critic in one row of the batch alone: is the least value taken "
    "over the rows, too, or one row picked?"
)
_ELSEWHERE = (
    "the actor's loss evaluates the policy at other recorded observations than its critic, at "
    "those of the next step perhaps: are both given the same rows?"
)
_LOOKED = 10  # looks, of which more than half must be at fault
_UNIFORM = 1e-3  # of dL/dQ: what rows of a mean differ by
_SCALED = (
    "; where the loop scales actions to the environment's limits by itself, env = "
    "probe.record(env) lets it be looked at"
)


_Critics = Sequence[tuple[nn.Module, tuple[Tensor, ...]]]  # copies, and what they were given


@final
class ActorObjective:
    """Looks at the actor's step.

    Args:
        policy: which the loop calls, or parts of it, one after the other.
    """

    name = "actor's steps raise their objective"

    def __init__(self, policy: nn.Module) -> None:
        self.policy = policy
        self.limits: tuple[Any, Any] = (None, None)  # of the recorded environment's actions
        self.ring: Ring | None = None
        self.declared: Sequence[nn.Module] = ()  # critics: Q of an observation and an action
        self._whole = False  # whether it is these that are asked, and not what they call
        self.density = _Density()
        self.on = False  # whether passes are heard: in windows
        self.made: Pass | None = None
        self._earlier: deque[PolicyCall] = deque(maxlen=_STEPS)  # at other steps of a rollout
        self.fitted: tuple[Tensor, ...] = ()  # what a critic was given at rows of the replay
        self._twins: dict[nn.Module, Twin] = {}
        self._rises: deque[bool] = deque(maxlen=LOOKS)
        self._against: deque[bool] = deque(maxlen=LOOKS)  # whether it was for the sign of log π
        self._without: deque[bool] = deque(maxlen=LOOKS)  # whether log π had no part in it
        self._weights: _Weights | None = (-1.0, 0.0, 1.0, 1.0)
        self._looks, self._passes, self._reason = 0, 0, _NO_CALL
        self._odds = 0.0  # S
        self.heard: list[Heard] = []
        self._rows: deque[str] = deque(maxlen=LOOKS)  # what is wrong with dL/dQ in a look
        self._values: list[dict[int, Tensor]] = []  # gradients of a loss in values, by call
        self._lowers: deque[str] = deque(maxlen=LOOKS)  # where they all are of one sign, which
        # Calls at states that its own actions led to, to which the loss sends nothing, and all.
        self._imagined: deque[tuple[int, int]] = deque(maxlen=LOOKS)
        self._likely: deque[str] = deque(maxlen=LOOKS)  # what it makes of recorded actions
        # Whether a critic whose parameters have gradients was ever called at the policy's actions.
        self.through = False
        self._frozen = False  # whether a critic was called at its states, without any gradient
        self._aside: deque[bool] = deque(maxlen=LOOKS)  # and not at its actions
        self._bare = False  # whether the loss fits without the squash's correction alone
        self._objective = "Q"  # of actions without a density
        self._pick = _PICKS[0]  # of several outputs, what it follows
        self._open = False  # whether it fits a Gaussian better whose small actions have no tanh

    def hear_policy(self, module: nn.Module, args: Any, output: Any) -> None:
        """The policy, or a part of it, has been called with gradients."""
        if not self.on:
            return
        outputs = several(output)
        known = bool(args) and all(isinstance(x, Tensor) for x in (*args, *outputs))
        inner = set(module.modules())
        before = [] if self.made is None or self.made.values else self.made.calls
        if not known and before and before[0].module in inner:
            before[0].begin_at(args)
        if not known or not outputs[0].requires_grad or passing(outputs[0]):
            return
        calls = [call for call in before if call.module not in inner]
        self._earlier.extend(call for call in before if call.module is module)
        made = {x.data_ptr() for call in calls for x in call.outputs}
        loose = any(x.requires_grad and x.data_ptr() not in made for x in args)
        call = PolicyCall(module, alone(args), alone(outputs), loose, args[0].detach())
        heard_by(call.arrived, outputs)
        self.made = Pass([*calls, call])

    def hear_critic(self, module: nn.Module, args: Any, output: Any) -> None:
        """A critic has; at the policy's actions where an argument has a gradient of its own."""
        outputs = several(output)
        known = self.on and args and all(isinstance(x, Tensor) for x in (*args, *outputs))
        known = known and not passing(outputs[0])
        if known and outputs[0].requires_grad:
            inner = set(module.modules()) - {module}
            own = any(x.requires_grad for x in args)
            call = Heard(module, alone(args), alone(outputs), own)
            self.heard = [*(x for x in self.heard if x.module not in inner), call]
            heard_by(call.arrived, outputs)
        cold = known and torch.is_grad_enabled() and not outputs[0].requires_grad
        if cold and self.made is not None:
            width = self.made.states.shape[-1]
            wide = len(args) > 1 or args[0].shape[-1] > width  # of an action, too
            self._frozen |= wide and torch.equal(args[0][..., :width], self.made.states)
        if known and not self.fitted and not any(x.requires_grad for x in args):
            self.fitted = args
        if known and self.made is not None and args[-1].requires_grad:
            inner = set(module.modules())
            self.through |= any(p.requires_grad for p in module.parameters())
            values = [each for each in self.made.values if each[0] not in inner]
            self.made.values = [*values, (module, alone(args))]

    def hear_value(self, module: nn.Module, args: Any, output: Any) -> None:
        """A critic, or a target of one, has been called where the policy's actions led."""
        known = isinstance(output, Tensor) and output.requires_grad and not passing(output)
        if self.on and known and graded(args):
            kept: dict[int, Tensor] = {}
            self._values.append(kept)
            heard_by(kept, (output,))

    @property
    def sent(self) -> Pass | None:
        """The pass with all rows to which the loss has sent a gradient, where the policy is called
        as a whole, at one step of a rollout after the other."""
        if self.made is None or len(self.made.calls) > 1 or not self._earlier:
            return self.made
        return Pass([joined([*self._earlier, *self.made.calls])])

    def after(self) -> None:
        """The actor has stepped; its critics have not, since they were called."""
        calls = [*self._earlier, *(() if self.made is None else self.made.calls)]
        led = [any(bool(g.any()) for g in x.arrived.values()) for x in calls if x.loose]
        if len(led) > 1:
            self._imagined.append((led.count(False), len(led)))
        self._earlier.clear()
        made, fitted, self.made, self.fitted = self.made, self.fitted, None, ()
        self._aside.append(self._frozen and made is not None and not made.values)
        self._frozen = False
        sent = [each for kept in self._values for each in kept.values() if bool(each.any())]
        if sent:
            down, up = (all(bool((s * x >= 0).all()) for x in sent) for s in (1, -1))
            self._lowers.append("lower" if down else "raise" if up else "")
        self._values = []
        if made is not None:
            self._see_rows(made)
        if made is not None and not made.values:
            with undisturbed():
                self._see_likelihood(made, fitted)
        if made is None or not made.values:
            return
        if any(isinstance(each, CHANGING) and each.training for each in self.policy.modules()):
            self._reason = "the policy has dropout or batch norm in its forward pass"
            return
        if any(call.loose for call in made.calls):
            self._reason = (
                "the policy is called at states that follow from its own actions, or its layers "
                "with operations between them"
            )
            return
        with undisturbed():
            critics = self._critics(made)
            old = action_of(made, self.policy, *self.limits)
            remedy = _SCALED if self.limits[0] is None else ""
            if old is None:
                self._reason = (
                    "the critic's actions are neither the policy's outputs nor drawn from them at "
                    "a scale that is known" + remedy
                )
                self.density.remedy = remedy if len(made.outputs) > 1 else ""
                return
            fresh = self._passes % REFIT == 0
            if fresh:
                try:
                    self._weights = self._weighed(made, old, critics)
                    if self._weights is None and self._turned(made):
                        critics = self._critics(made)
                        self._weights = self._weighed(made, old, critics)
                except _UnknownRows:
                    self._reason = UNROWED
                    return
            self._passes += 1
            old = opened(made, old) if self._open else old
            self._objective = "Q" if old.log_density is None else "Q − α log π"
            weights = self._weights
            if weights is None:
                remedy = remedy if old.squash.half is None else ""
                self._reason = (
                    "the gradient that the actor's loss sends to mean and log σ is not one of Q "
                    "and log π as they are read" + remedy if old.noise is not None else
                    "the gradient that the actor's loss sends to its actions is not that of Q as "
                    "it is read: the loss has other terms, or the critic gives no values"
                )  # fmt: skip
                self.density.remedy = remedy
                return
            if self._bare:  # Q − α log π is not what it follows
                self._reason = "log π in the actor's loss is that of the action before its tanh"
            if not weights[0]:  # too little of Q to be seen
                self._reason = "the entropy outweighs Q in the actor's loss"
            self._without.append(weights[3] < _NO_DENSITY and weights[2] < _EXACT)
            wrong = weights[0] > 0 or weights[1] < 0  # lowered, whatever one step makes of it
            if wrong:
                self._looks += 1
                exact = fresh and old.noise is not None and weights[2] < _EXACT
                self._count(False, exact, entropy=weights[0] <= 0)
            if wrong or self._bare or not weights[0]:
                return
            parts = self._fresh(self.policy).parts
            new = old.again(made.again(parts))
            if self._looks == 0 and not torch.equal(old.again(made.again(parts)).value, new.value):
                self._reason = "the policy draws its noise inside of its forward pass"
                return
            rise = _rise(critics, self._pick, old, new, abs(weights[1] / weights[0]))
        if torch.equal(old.value, new.value):
            self._reason = "its steps leave the actor's actions as they were"
            return
        self._looks += 1
        self._count(rise > 0)

    def part(self) -> None:
        """Another optimiser has stepped: what critics were called for is over."""
        self.heard, self._values = [], []

    def _see_rows(self, made: Pass) -> None:
        """Where the loss has Q: a mean over rows sends all of them the same, to raise it."""
        heard, self.heard = self.heard, []
        own = [g for x in heard if x.own and (g := x.by_row()) is not None]
        state, actions = made.states, made.outputs[0].shape[-1]
        wide = state.shape[-1] + actions
        others = [
            g for x in heard
            if not x.own and (g := x.by_row()) is not None
            and (len(x.args) > 1 or x.args[0].shape[-1] == wide)
            and x.args[-1].shape[-1] in (actions, wide)
        ]  # fmt: skip
        sent = own or others
        if not sent or any(len(g) != len(sent[0]) or len(g) < _FEW_ROWS for g in sent):
            return
        total = torch.stack(sent).sum(0)
        same = float(total.max() - total.min()) <= _UNIFORM * float(total.abs().max())
        self._rows.append(
            _ELSEWHERE if self._apart(made)
            else _OF_ONE if own and int((total != 0).sum()) == 1
            else _ASIDE if not own and same and float(total.max()) < 0
            else ""
        )  # fmt: skip

    def _apart(self, made: Pass) -> bool:
        """Are the policy's observations recorded ones, and its critic's others?"""
        if self.ring is None or not made.values:
            return False
        state, (head, *_) = made.states[:ROWS], made.values[0][1]
        head = head[:ROWS, : state.shape[-1]]
        if state.ndim != 2 or head.shape != state.shape or torch.equal(head, state):
            return False
        mine, its = (self.ring.places(x.cpu().numpy()) for x in (state, head))
        known = (mine >= 0) & (its >= 0)
        return bool(2 * known.sum() > len(known) and 2 * (mine != its)[known].sum() > known.sum())

    def _critics(self, made: Pass) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
        """Copies of what was called, or of the declared critics around it, which give Q."""
        called = (
            (self._around(module) if self._whole else module, args) for module, args in made.values
        )
        return [(self._fresh(module).copy, args) for module, args in called]

    def _around(self, module: nn.Module) -> nn.Module:
        return next((x for x in self.declared if x is not module and module in x.modules()), module)

    def _turned(self, made: Pass) -> bool:
        """Whether the other of both can be asked, too, where one does not fit."""
        if all(self._around(module) is module for module, _ in made.values):
            return False
        self._whole = not self._whole
        with suppress(TypeError, RuntimeError):  # of an observation and an action in one
            return all(each(*args) is not None for each, args in self._critics(made))
        self._whole = False
        return False

    def _see_likelihood(self, made: Pass, fitted: tuple[Tensor, ...]) -> None:
        """Of a loss −Σ w log π(a) of recorded actions (AWR, AWAC, IQL), whether it makes them more
        or less likely; "" where w has both signs. Of actions that are still the policy's own it may
        have one alone: returns below 0 (REINFORCE)."""
        state, outputs = made.states, made.outputs
        action = self._recorded(state, fitted)
        if action is None or outputs[0].shape != action.shape:
            return
        for squash in squashes(made, self.policy, action, *self.limits):
            inner = squash.inner(action)
            log_std, weights = outputs[-1], likelihood_weights(made, inner)
            if len(outputs) == 1:
                for each in self._alone(action.shape[-1]):
                    if (weights := constant_weights(made, inner, each)) is not None:
                        log_std = each.detach().reshape(-1).expand_as(action)
                        break
            if weights is None:
                continue
            up, down = bool((weights >= 0).all()), bool((weights <= 0).all())
            mean, log_std, given = (x[:ROWS] for x in (outputs[0], log_std, action))
            if not down or noise_of(mean, log_std, given, squash) is None:
                self._likely.append("more" if up else "less" if down else "")
            return
        self._likely.append("")  # another loss: one that fits by chance says nothing

    def _alone(self, width: int) -> list[nn.Parameter]:
        """What may be one log σ of all states: tensors as wide as an action, of no layer."""
        named = self.policy.named_parameters()
        of_layers = ("weight", "bias")
        return [x for name, x in named if x.numel() == width and not name.endswith(of_layers)]

    def _recorded(self, state: Tensor, fitted: tuple[Tensor, ...]) -> Tensor | None:
        """Actions [N, da] of the replay in these states, where a critic was given both, or they
        are recorded."""
        if self.ring is not None and self.ring.fits(state):
            places = self.ring.places(state.cpu().numpy())
            if (places >= 0).all():
                return torch.as_tensor(self.ring.actions(places)).to(state)
        if not fitted or state.ndim != 2:
            return None
        head, last = fitted[0][:, : state.shape[1]], fitted[-1]
        if head.shape != state.shape or not torch.equal(head, state):
            return None
        return last if len(fitted) > 1 else last[:, state.shape[1] :]

    def _count(self, rose: bool, exact: bool = False, entropy: bool = False) -> None:
        """One look; `entropy`: log π alone has the wrong sign in the loss."""
        self._rises.append(rose)
        self._against.append(entropy)
        fell = _FITTED if exact else log((1 - WRONG) / (1 - SOUND))
        step = log(WRONG / SOUND) if rose else fell
        self._odds = min(max(self._odds + step, 0.0), 2 * SURE)

    def _weighed(self, made: Pass, old: Action, critics: _Critics) -> _Weights | None:
        """With the density of the squashed Gaussian; where only the one before the squash fits, the
        loop has left its correction out. Small actions look squashed where nothing squashes them:
        what leaves less of the gradient is right."""
        several = sum(x.shape[1] for x in _outputs(critics, old.value)) > 1
        order = dict.fromkeys((self._pick, *_PICKS)) if several else (_PICKS[0],)
        best: tuple[_Weights, _Pick, bool, bool] | None = None
        for pick in order:
            found = self._fitted(made, old, critics, pick)
            if found is not None and (best is None or found[0][2] < best[0][2]):
                best = found[0], pick, *found[1:]
            if best is not None and best[0][2] < _EXACT and not best[2]:
                break
        if best is None:
            self._bare = self._open = False
            return None
        fit, self._pick, self._bare, self._open = best
        if old.squash.half is not None and old.noise is not None and not self._open:
            self.density.take(fit, self._bare)
        return fit

    @staticmethod
    def _fitted(
        made: Pass, old: Action, critics: _Critics, pick: _Pick
    ) -> tuple[_Weights, bool, bool] | None:
        """A fit, whether it is that without the correction, and that without a squash."""
        if old.noise is None:
            found = _slope(made, old, critics, pick)
            return None if found is None else (found, False, False)
        found = _weights(made, old, critics, pick)
        fit = found or _weights(made, old, critics, pick, corrected=False)
        if old.squash.half is not None and fit is not None and fit[2] > _EXACT:
            free = _weights(made, opened(made, old), critics, pick)
            if free is not None and free[2] < fit[2]:
                return free, False, True
        return None if fit is None else (fit, found is None, False)

    def answer(self, networks: Any = None) -> CheckAnswer:
        most = max(set(self._rows), key=self._rows.count, default="")
        times, of = self._rows.count(most), len(self._rows)
        if most and of >= _LOOKED and 2 * times > of:
            what = "rows say" if most == _ELSEWHERE else "dL/dQ by row says"
            proof = f"{what} so in {times} of {of} looks (fault: half)"
            return CheckAnswer("fault", proof, times / of, 0.5, of, UNFOLLOWED, most)
        if not self._looks and len(self._lowers) >= _LOOKED:
            times, of = self._lowers.count("lower"), len(self._lowers)
            proof = f"dL/dV is positive in {times} of {of} looks (fault: half)"
            if 2 * times > of:
                return _descending("rises with the critic's values", times, of, proof)
        if not self._looks and len(self._imagined) >= _LOOKED:
            silent, led = (sum(each) for each in zip(*self._imagined, strict=True))
            if 2 * silent > led:
                proof = (
                    f"the loss sends nothing to {silent / led:.0%} of the actions at imagined "
                    f"states: are they detached, as is meant where θ acts in the first action "
                    f"alone?"
                )
                return CheckAnswer("open", proof, silent / led, 0.5, len(self._imagined))
        if not self._looks and len(self._lowers) >= _EARLY:
            times, of = self._lowers.count("raise"), len(self._lowers)
            if 2 * times > of:
                proof = (
                    f"its loss falls with the critic's values, dL/dV ≤ 0, in {times} of {of} looks "
                    f"(fault: ≥ 0 in half); rewards of a model, if any, are not seen"
                )
                return CheckAnswer("sound", proof, 1 - times / of, 0.5, of)
        if not self._looks and len(self._likely) >= _LOOKED:
            times, of = self._likely.count("less"), len(self._likely)
            proof = f"its loss makes recorded actions less likely in {times} of {of} looks"
            proof += " (fault: half)"
            if 2 * times > of:
                return _descending("makes recorded actions less likely", times, of, proof)
            if "" not in self._likely:
                return CheckAnswer("sound", proof, times / of, 0.5, of)
        if not self._looks and 2 * (times := sum(self._aside)) > len(self._aside) >= _LOOKED:
            return CheckAnswer("open", _FROZEN, times / len(self._aside), 0.5, len(self._aside))
        if not self._looks:
            declared = self._reason is _NO_CALL and networks is not None and networks.declared
            return off(_NOT_CALLED if declared and networks.critics else self._reason)
        looks, rose = len(self._rises), sum(self._rises)
        share = rose / looks
        proof = (
            f"{self._objective} rose in {rose} of {looks} of its steps (fault: under {LEAST:.0%})"
        )
        if (looks == LOOKS and share < LEAST) or self._odds > SURE:
            message = (
                f"the actor's steps lower its own objective, {self._objective}, in {looks - rose} "
                f"of {looks} looks: is the sign of its loss right?"
            )
            if 2 * (entropy := sum(self._against)) > looks - rose:
                proof = f"log π has the wrong sign in its loss in {entropy} of {looks} looks"
                message = (
                    f"the actor's loss raises log π, which lowers the entropy, in {entropy} of "
                    f"{looks} looks: is the sign of log π right, and α above 0, as exp(log α) is?"
                )
            return CheckAnswer(
                "fault", proof, share, LEAST, self._looks, DESCENT, message
            )  # fmt: skip
        if looks < _EARLY:
            return CheckAnswer("waiting", f"{looks} looks of {LOOKS}", share, LEAST, looks)
        if 2 * (none := sum(self._without)) > (of := len(self._without)):
            proof += (
                f"; log π of the drawn actions has no part in its gradient, in {none} of {of} "
                f"looks: is it detached, or is no entropy meant?"
            )
            return CheckAnswer("open", proof, share, LEAST, self._looks)
        return CheckAnswer("sound", proof, share, LEAST, self._looks)

    def _fresh(self, module: nn.Module) -> Twin:
        if module not in self._twins:
            self._twins[module] = Twin(module)
        return self._twins[module].now()


def _descending(what: str, times: int, of: int, proof: str) -> CheckAnswer:
    """A wrong sign that all rows of a loss show."""
    message = (
        f"the actor's loss {what}, in all rows of {times} of {of} looks: is the sign of the loss "
        f"right?"
    )
    return CheckAnswer("fault", proof, times / of, 0.5, of, DESCENT, message)


@final
class _Density:
    """Is log π in the actor's loss that of the squashed action?

    ∂L = x ∂Q + y ∂log π holds to rounding with the term log(1 − tanh²), or without it.
    """

    name = "log π is that of the squashed action"

    def __init__(self) -> None:
        self._fits = self._bare = 0
        self.remedy = ""  # where the action's scale may be what is not known

    def take(self, fit: _Weights, bare: bool) -> None:
        """Weights of one loss, and whether they fit without the correction alone."""
        if fit[1] != 0:
            self._fits += 1
            self._bare += bare

    def answer(self, *_: object) -> CheckAnswer:
        if not self._fits:
            return off("no log π of a squashed Gaussian was read" + self.remedy)
        share = self._bare / self._fits
        proof = f"the loss fits without the correction alone in {self._bare} of {self._fits} looks"
        if self._fits < FITS:
            return CheckAnswer("waiting", f"{self._fits} fits of {FITS}", share, HALF, self._fits)
        if share <= HALF:
            return CheckAnswer("sound", proof, share, HALF, self._fits)
        return CheckAnswer(
            "fault", proof, share, HALF, self._fits, DENSITY,
            "log π in the actor's loss is that of the action before its tanh: is log(1 − tanh²) "
            "subtracted?",
        )  # fmt: skip


def _outputs(critics: _Critics, action: Tensor, repeats: int = 1) -> list[Tensor]:
    """Q_k(s, a) at the critics' own states, [N, K] each, repeated beside each other."""
    values = []
    for module, args in critics:
        *head, last = (torch.cat([x[:ROWS]] * repeats) for x in args)
        width = last.shape[-1] - action.shape[-1]
        last = torch.cat([last[..., :width], action], -1) if width else action
        found = outputs_by_row(module, *head, last)
        if found is None:
            raise _UnknownRows
        values += found
    return values


class _UnknownRows(Exception):
    """Which number of a critic is of which row."""


def _least_mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([x.mean(1) for x in values]).min(0).values


# What of all outputs a loss may follow, in the order in which they are tried.
_PICKS: tuple[_Pick, ...] = (
    _least_mean,  # of modules; of quantiles
    lambda values: torch.cat([*values], 1).min(1).values,
    lambda values: torch.cat([*values], 1).mean(1),
    lambda values: values[0][:, 0],
)


def _rise(critics: _Critics, pick: _Pick, old: Action, new: Action, alpha: float) -> float:
    """Δ E[Q − α log π]"""
    with torch.no_grad():
        outputs = _outputs(critics, torch.cat([old.value, new.value]), 2)
        before, after = pick(outputs).chunk(2)
        rise = float((after - before).mean())
    if old.log_density is None or new.log_density is None:
        return rise
    return rise - alpha * float(new.log_density - old.log_density)


def _weights(
    made: Pass, old: Action, critics: _Critics, pick: _Pick, corrected: bool = True
) -> _Weights | None:
    """x and y of the loss x Q + y log π, by the gradients that it has sent to mean and log σ;
    each is 0 where it cannot be seen; what is left, and log π's part; None: no fit.

    Args:
        corrected: log π is that of the squashed action, not of the one before.
    """
    if not {0, 1} <= made.arrived.keys() or old.noise is None:
        return None
    mean, log_std = (x[:ROWS].detach().clone().requires_grad_() for x in made.outputs[:2])
    action = gaussian_action(mean, log_std, old.noise, old.squash)
    assert action.log_density is not None
    seen = torch.ones_like(mean, dtype=torch.bool)
    if old.squash.half is not None:  # ε is lost in rounding where tanh is flat
        seen = ((old.value - old.squash.centre) / old.squash.half).abs() < _FLAT
        if int(seen.sum()) < _FEW_ROWS * mean.shape[-1]:
            return None
    arrived = torch.cat([made.arrived[k][:ROWS][seen] for k in (0, 1)]).double().cpu()
    parts = []
    density = action.log_density if corrected else -log_std.sum(-1).mean()
    for each in (pick(_outputs(critics, action.value)).mean(), density):
        found = torch.autograd.grad(
            each, (mean, log_std), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        parts.append(torch.cat([x[seen] for x in found]).double().cpu())
    both, size = torch.stack(parts, 1), float(arrived.norm())
    fit = torch.linalg.lstsq(both, arrived[:, None]).solution[:, 0]
    terms = (both * fit).norm(dim=0).tolist()
    left = float((arrived - both @ fit).norm())
    if not left < _UNEXPLAINED * size:
        return None
    x, y = (
        float(x) if term > _UNEXPLAINED * size else 0.0 for x, term in zip(fit, terms, strict=True)
    )
    return x, y, left / size, terms[1] / size


def _slope(made: Pass, old: Action, critics: _Critics, pick: _Pick) -> _Weights | None:
    """The same of the loss x Q of a deterministic policy, by the gradient that it has sent to the
    actions; None where that cannot be seen, or the loss has other terms."""
    if 0 not in made.arrived:
        return None
    output = made.outputs[0][:ROWS].detach().clone().requires_grad_()
    value = pick(_outputs(critics, squashed(output, old.squash))).mean()
    (own,) = torch.autograd.grad(value, output)
    own, arrived = own.double().reshape(-1), made.arrived[0][:ROWS].double().reshape(-1)
    size = float(own @ own)
    x = float(own @ arrived) / size if size > 0 else 0.0
    left = float((arrived - x * own).norm())
    whole = float(arrived.norm())
    return (x, 0.0, left / whole, 1.0) if x and left < _UNEXPLAINED * whole else None
