"""Laws of a loss, and its conformance: a row for each law, with what it says where it is broken.

"critic.reward"            holds           "critic.reward.negated"    broken, or undecided
"critic.reward.skipped"    not asked       "critic.reward.meant"      declared as broken on purpose
"""

from gradlab.findings.finding import Code, register
from gradlab.wording import percent

# What a law needs → the line to write.
NEEDS = {
    "actor": "actor=policy",
    "action_limit": "action_limit=1.0",
    "bonus": "entropy=lambda batch: …, [B]",
    "bootstrap": "target=[q1_target, q2_target], as the loss calls them",
    "clip": "clip=0.2",
    "critic": "critic=[q1, q2]",
    "discount": "discount=0.99",
    "draw": "draw=lambda observation: (action, log_prob)",
    "ends": 'columns={"terminated": "done"}',
    "lengths": "lengths=(8, 16)",
    "level": "a critic of one number for each row",
    "log_prob": "log_prob=lambda batch: …, [B]",
    "optimizer": "optimizer=actor_optimizer",
    "path": "critic=[q1, q2], without a model",
    "prediction": "critic=[q1, q2], whose values the loss fits",
    "several": "target=[q1_target, q2_target]",
    "target": "target=[q1_target, q2_target]",
    "target_actor": "target_actor=policy_target",
    "temperature": "temperature=log_alpha",
    "temperature_loss": "temperature_loss=lambda log_prob: …",
    "trace": "trace=0.95",
} | {
    name: f'columns={{"{name}": "…"}}'
    for name in (
        "action", "advantage", "next_observation", "observation", "old_log_prob", "return",
        "reward", "truncated",
    )
}  # fmt: skip

_NORM = "BatchNorm mixes the rows"
_DISCOUNT = "The target rises by {value} with the next value, γ = {threshold}"

# Law: title; what holds; name → what is broken; name → why it is undecided and what would decide.
_LAWS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    "loss.finite": (
        "finite", "The loss is finite.", {"not_finite": "The loss is NaN or infinite, from {at}."},
        {},
    ),
    "loss.repeats": (
        "repeats", "One batch and seed give one loss.", {},
        {"differs": "It differs by {value} from call to call: hand it its draws as columns."},
    ),
    "critic.precision": (
        "precision", "Values are float32 or float64.", {"half": "Values are {at}: use float32."},
        {},
    ),
    "critic.predictions": (
        "predictions", "Every critic is fitted.", {"unused": "No gradient arrives at {at}."},
        {
            "logits": "{at} gives logits: declare a module around it that gives values.",
            "silent": "{at} is not called by its forward: declare the module that is.",
        },
    ),
    "critic.detached": (
        "detached target", "Targets have no gradient.",
        {
            "target": "The critic's loss has a gradient in the {at}: detach the target.",
            "own": "The loss has a gradient through the next value of {at}: detach it.",
        }, {},
    ),
    "critic.rows": (
        "rows", "No row's target moves with another row.",
        {"mixed": "A row's target moves with another row's {at}: [B, 1] against [B], or a statistic"
         " of the batch."}, {},
    ),
    "critic.mask": (
        "mask of ends", "Targets end with the episode.",
        {"left_out": "Targets go on beyond terminal states: is (1 − d) left out?",
         "inverted": "The mask of terminal states is inverted."}, {},
    ),
    "critic.reward": (
        "reward", "The target rises with the reward.",
        {
            "masked": "The reward is left out where an episode ends.",
            "lost": "The reward is not in the target.",
            "negated": "The target falls with the reward.",
            "uneven": "The target does not rise alike with the reward in all rows.",
        },
        {"clipped": "Targets are clipped: take a batch inside their limits."},
    ),
    "critic.entropy": (
        "entropy in the target", "The target has α log π where no episode ends.",
        {
            "ends": "The entropy is in the target of rows that end.",
            "left_out": "Targets do not move with the temperature.",
            "negated": "The entropy has the wrong sign in the target: v − α log π.",
            "size": "The target has {value} of the entropy.",
        },
        {"draws": "The loss draws other actions first: only that the entropy is there is known."},
    ),
    "critic.discount": (
        "discount", "The target rises by {value} with the next value.",
        {
            "left_out": f"{_DISCOUNT}: it is left out.",
            "squared": f"{_DISCOUNT}: it counts twice.",
            "unused": "The next value is not in the target.",
            "one_step": f"{_DISCOUNT}: that of one step, where a row has several?",
            "other": f"{_DISCOUNT}.",
        },
        {"clipped": "Targets are clipped: take a batch inside their limits."},
    ),
    "critic.targets": (
        "targets", "Every target network is used.", {"unused": "{at} is never called."}, {},
    ),
    "critic.target_actors": (
        "target policies", "Every target policy is used.", {"unused": "{at} is never called."}, {},
    ),
    "critic.next_value": (
        "next value", "Targets move with s′, and not with s or a.",
        {"here": "Targets move with the stored {at}: is the next value taken at (s, a)?",
         "still": "Targets do not move with the next observation."},
        {"batch_norm": f"{_NORM}: call eval() first."},
    ),
    "critic.beyond": (
        "beyond ends", "What follows an end changes nothing.",
        {"moves": "Rows that end move with the observation after it: is (1 − d) left out?"},
        {"batch_norm": f"{_NORM}: call eval() first."},
    ),
    "critic.time_limits": (
        "time limits", "Targets go on beyond time limits.",
        {"moves": "Targets move with `truncated`: a time limit is no end."}, {},
    ),
    "critic.level": (
        "level", "The target is r + γ v.", {"ends": "At ends the target is not the reward."},
        {
            "shifted": "At ends the target is the reward and {value}: declare the module that gives"
            " values back, if they are normalised.",
            "uneven": "The reward does not enter alike in all rows.",
            "elsewhere": "The target is not r + γ v of a v between the target critics': declare"
            " temperature, or return further terms in a dict.",
            "terms": "A critic is fitted twice: return the terms in a dict.",
        },
    ),
    "critic.twins": (
        "twins", "The largest next value does not count alone.",
        {"largest": "Of the next values the largest counts."}, {},
    ),
    "critic.descends": (
        "descent", "The loss rises away from the target.",
        {"rises": "The loss falls away from the target in {value} of the rows."}, {},
    ),
    "critic.weights": (
        "weights of rows", "Rows weigh alike.",
        {"uneven": "Rows weigh differently, by {value} (declare `weight`, if they should)."}, {},
    ),
    "critic.inputs": (
        "inputs", "Critic and target see observations in one scale.",
        {"apart": "Critic and target see observations in different scales."},
        {"other": "Inputs are no scaled observations."},
    ),
    "critic.next_action": (
        "next actions", "Next actions are within their limits.",
        {"beyond": "{value} of the next actions are beyond their limits: noise after the clip?"},
        {"no_action": "Targets are given no action of this shape."},
    ),
    "actor.gradient": (
        "gradient", "The actor has a gradient.",
        {
            "sampled": "The actor's gradient is zero: its action is sampled ({at}).",
            "discrete": "The actor's gradient is zero: its action has no derivative ({at}).",
            "detached": "The actor's gradient is zero: its action is detached ({at}).",
            "no_grad": "The actor's gradient is zero: its action is without gradients ({at}).",
            "zero": "The actor's gradient is zero: a clamp, a saturated tanh, a rounding?",
            "apart": "The loss does not depend on this actor.",
        }, {},
    ),
    "actor.finite": (
        "finite gradient", "The gradient is finite.",
        {"not_finite": "The gradient of {at} is not finite: a root, logarithm or division at 0?"},
        {},
    ),
    "actor.lost": (
        "lost paths", "No action has lost its gradient.",
        {
            "sampled": "The loss moves with a sampled action ({at}): use rsample, or a score.",
            "discrete": "The loss moves with an action without derivative ({at}).",
            "detached": "The loss moves with a detached action ({at}).",
            "no_grad": "The loss moves with an action made without gradients ({at}).",
        }, {},
    ),
    "actor.reached": (
        "reached", "Model and critic are given the actor's actions.",
        {"apart": "The {at} moves the loss, and nothing of the actor's enters it."},
        {"own_loss": "The {at} moves the loss apart from the actor, beside a score: its own loss?"},
    ),
    "actor.values": (
        "values", "Values that move the loss move its gradient.",
        {"detached": "The loss moves with the {at}'s values, and its gradient does not."}, {},
    ),
    "actor.score": (
        "scores", "Scores are weighed by what their action earns.",
        {"constant": "log π of a cut action ({at}) has a weight that does not depend on it: its"
         " gradient is 0 on average.",
         "cancels": "log π of a reparameterised action ({at}) is weighed by that action's value:"
         " score and path cancel."}, {},
    ),
    "actor.parameters": (
        "parameters", "Every tensor of the actor has a gradient.",
        {"none": "No path leads to {at}.", "zero": "The gradient of {at} is exactly zero."}, {},
    ),
    "actor.optimizer": (
        "optimiser", "The optimiser holds the actor alone.",
        {"holds": "The actor's optimiser holds {at}, to which the loss gives a gradient.",
         "misses": "The actor's optimiser does not hold {at}."}, {},
    ),
    "actor.sign": (
        "sign", "The loss falls with Q.", {"rises": "The loss rises with Q in {value} of the rows."},
        {"masked": "Rows are masked."},
    ),
    "actor.rows": (
        "rows", "Rows weigh alike.",
        {"uneven": "Rows weigh differently, by {value}: a minimum over the batch, a broadcast?"},
        {"weighed": "Rows have weights."},
    ),
    "actor.twins": (
        "twins", "The largest critic does not count alone.",
        {"largest": "Of the critics the largest counts in every row."}, {},
    ),
    "actor.state": (
        "state", "Critic and policy see the same rows.",
        {"other_row": "The critic is given other rows' observations than the policy."}, {},
    ),
    "actor.own": (
        "own actions", "The loss is of the policy's actions.",
        {"moves": "The actor's loss moves with the stored {at}."}, {},
    ),
    "actor.density": (
        "density", "log π is that of the drawn action.",
        {"other": "The density integrates to {value}: log(1 − tanh²), its sign, the scale?",
         "several": "log π has {value} numbers for each row: sum it over actions."},
        {"discrete": "Actions are discrete.", "mean": "Drawn actions do not differ."},
    ),
    "actor.entropy": (
        "entropy", "The loss has α log π.",
        {
            "left_out": "The loss does not move with the temperature.",
            "detached": "The gradient does not move with the temperature: log π is detached.",
            "negated": "The entropy has the wrong sign: α log π − Q is lowered.",
            "size": "The loss has {value} of the mean log π.",
        }, {},
    ),
    "actor.temperature": (
        "temperature", "α rises where the entropy is too low.",
        {"negated": "α falls where the entropy is too low."}, {},
    ),
    "actor.lengths": (
        "lengths", "Terms scale alike with the segment.",
        {"apart": "Terms scale with different powers of the segment's length: {at}."},
        {"one_scale": "Rewards or log π are not seen: declare model, or return terms in a dict."},
    ),
    "actor.derivative": (
        "derivative", "The gradient is the loss's derivative.",
        {"other": "{value} of the derivative is missing: a backward of its own, a hook?"},
        {},
    ),
    "policy.weights": (
        "weights", "Rows are weighed by their advantages.",
        {
            "still": "The loss does not move with the advantages.",
            "negated": "Actions of larger advantage become less likely.",
            "other_row": "Rows are weighed by the advantages of {value} rows off.",
            "apart": "Weights follow advantages by a correlation of {value} alone.",
        },
        {"alike": "The rows' ∇ log π depend on each other: take a batch of different states.",
         "bent": "Weights rise with advantages, not in proportion: declare monotone=True."},
    ),
    "policy.ratio": (
        "ratio", "The loss moves with the old log π.",
        {
            "anew": "The loss does not move with the old log π: is it computed anew?",
            "negated": "Actions of larger advantage become less likely: is the ratio inverted?",
            "apart": "Ratios follow advantages by a correlation of {value} alone.",
        }, {},
    ),
    "policy.clip": (
        "clip", "Steps for the better are clipped.",
        {
            "unclipped": "Nothing is clipped.",
            "other_side": "The wrong side is clipped: a minimum of two gains is meant.",
            "elsewhere": "The clip is not at 1 ± ε.",
        }, {},
    ),
    "policy.bonus": (
        "entropy bonus", "Without advantages the entropy does not fall.",
        {"negated": "Without advantages the loss lowers the entropy."}, {},
    ),
    "policy.value": (
        "value", "The value is fitted to its row's return.",
        {
            "unused": "No gradient arrives at the value.",
            "mixed": "Values move with other rows' returns: [B, 1] against [B]?",
            "apart": "The value is not fitted to its row's return.",
        },
        {"silent": "The critic is not called by its forward: declare the module that is.",
         "scaled": "The value is fitted to a scaled return."},
    ),
    "gae.linear": (
        "linear", "Zeros give zeros.", {"offset": "Zeros do not give zeros: normalise outside."}, {},
    ),
    "gae.environments": (
        "environments", "Environments do not mix.", {"mixed": "Environments are mixed."}, {},
    ),
    "gae.reward": (
        "reward", "A reward decays with γλ.",
        {"negated": "Advantages fall with the reward.",
         "decay": "A reward one step later counts {value}, γλ = {threshold}."}, {},
    ),
    "gae.ends": (
        "ends", "Nothing crosses an end.",
        {"left_out": "Advantages go on beyond an episode's end.",
         "late": "Flags are used one step late.", "early": "Flags are used one step early."}, {},
    ),
    "gae.value": (
        "value", "The next value counts γ, its own −1.",
        {"swapped": "γ and λ are exchanged.",
         "discount": "The next value counts {value}, γ = {threshold}."}, {},
    ),
    "gae.time_limits": (
        "time limits", "A limit's last value counts γ.",
        {"lost": "The last value does not count where a limit cut the episode."}, {},
    ),
    "gae.last_value": (
        "last value", "The value behind the rollout counts.",
        {"lost": "The value behind the rollout does not count, or elsewhere."}, {},
    ),
}  # fmt: skip


def _four(value: float, digits: int) -> str:
    """γ is told from γ² by its third digit."""
    return f"{value:.4g}"


for _law, (_title, _holds, _broken, _open) in _LAWS.items():
    _name = _law.partition(".")[2]
    _or = f'Correct it, or declare meant=["{_name}"].'
    register(
        {_law: Code(_title, _holds, write=_four)}
        | {
            f"{_law}.{name}": Code(_title, text, _or, "error", _four)
            for name, text in _broken.items()
        }
        | {f"{_law}.{name}": Code(_title, text) for name, text in _open.items()}
        | {
            f"{_law}.skipped": Code(_title, "Not asked: it needs {at}."),
            f"{_law}.meant": Code(_title, "Broken on purpose, as declared."),
            f"{_law}.error": Code(_title, "Not decided: {at}."),
        }
    )
register({
    "actor.own.moves?": Code("own actions", "The loss also moves with the stored {at}: of behaviour"
                             ' cloning? Declare meant=["own"].'),
    "actor.derivative.surrogate": Code(
        "derivative", "Not asked: values are cut or scored, the gradient is a surrogate's."
    ),
    "conform.exact": Code("gradient", "Exact: {value} × the gradient."),
    "conform.designed": Code("gradient", "Biased by design, {at}: cosine {value}.",
                             "Leave exact=True out."),
    "conform.biased": Code("gradient", "Biased: cosine {value}.", "Correct it, if its source does "
                           "not say so."),
    "conform.zero": Code("gradient", "The expected gradient is zero.", "Correct it.", "error"),
    "conform.downhill": Code("gradient", "The expected step goes down: cosine {value}.",
                             "Correct its sign.", "error"),
    "conform.scale": Code("scale", "{value} × the gradient."),
    "conform.rest": Code("rest", "{value} of it beyond.", write=percent),
    "conform.term": Code("term", "{value} {subject}, where {threshold} is right."),
})  # fmt: skip
