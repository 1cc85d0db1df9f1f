"""A loop's own parts: who moved which network, and what is stored against what was recorded.

The first code of each check is its claim: it passes, waits or is skipped by it.
"""

from gradlab.findings.finding import Code, register
from gradlab.wording import percent


def _claim(title: str, sentence: str) -> Code:
    return Code(title, sentence, "{at}.", "note")


def _fault(title: str, sentence: str, remedy: str) -> Code:
    return Code(title, sentence, remedy, "error")


register({
    "moved_own": _claim("own steps", "Networks move by their own optimiser."),
    "moved_still": _fault(
        "own steps", "{subject} has not moved in {n} steps of its optimiser.",
        "Does its optimiser hold it? Else freeze it.",
    ),
    "moved_in_part": _fault(
        "own steps", "{n} steps moved {subject}, but never {at}.",
        "Does its optimiser hold all? Else freeze that part.",
    ),
    "moved_alone": _claim("steps of others", "Nothing else moves a network."),
    "moved_by_another": _fault(
        "steps of others", "{subject} moves at {at} in {n} of {threshold} looks.",
        "Give each its own parameters, or declare one for both.",
    ),
    "moved_between": _fault(
        "steps of others", "{subject} moves between steps in {n} of {threshold} looks.",
        "Are network and target exchanged? Else declare its optimiser.",
    ),
    "moved_size": _claim("size of steps", "A step moves a network by 0.003% to 5% of its size."),
    "moved_far": Code(
        "size of steps", "A step moves {subject} by {number} of its size, limit {threshold}.",
        "Divide its rate by ten.", "error", percent,
    ),
    "moved_little": Code(
        "size of steps", "A step moves {subject} by {number} of its size, limit {threshold}.",
        "Is its rate or clip too small, or `eps` too large?", "error",
    ),
    "moved_settings": _claim("settings", "Rates, `eps` and weight decays are usual."),
    "moved_unusual": _fault(
        "settings", "{at} of the optimiser of {subject} is {number}, limit {threshold}.",
        "Is it another argument's?",
    ),
    "moved_gradient": _claim("gradients", "Networks step along their own losses."),
    "moved_mixed": _fault(
        "gradients", "In {n} of {threshold} steps {subject} holds what another loss sent.",
        "Call `zero_grad()` before its own `backward()`, and make targets under `no_grad`.",
    ),
    "moved_uncleared": _fault(
        "gradients", "Gradients of {subject} add up in {n} of {threshold} steps.",
        "Call `zero_grad()` before each `backward()`.",
    ),
    "moved_targets": _claim("targets", "Targets follow their networks."),
    "moved_target_same": _fault(
        "targets", "{subject} is {at} itself.", "Make it a `copy.deepcopy`."
    ),
    "moved_target_stepped": _fault(
        "targets", "{subject} moves at {at} in {n} of {threshold} looks.",
        "Which optimiser holds the targets?",
    ),
    "moved_target_frozen": _fault(
        "targets", "{subject} has not moved in {n} steps of {at}.", "Is it updated?"
    ),
    "moved_target_astray": _fault(
        "targets", "{subject} moves, and not towards {at}.", "Is it another network's target?"
    ),
    "moved_target_fast": _fault(
        "targets", "{subject} takes {number} of {at} at each step, limit {threshold}.",
        "Are τ and 1 − τ exchanged?",
    ),
    "moved_twins": _claim("twins", "Critics differ from each other."),
    "moved_twins_equal": _fault(
        "twins", "{subject} and {at} are equal in every weight.",
        "Give each its own initial weights.",
    ),
    "stored_batches": _claim("batches", "Batches differ."),
    "stored_again": _fault(
        "batches", "{n} batches are {number} different ones.", "Is the replay sampled each time?"
    ),
    "stored_alike": _fault(
        "batches", "Rows of a batch are the same observation, in {number} of {n} batches.",
        "Store copies of its array.",
    ),
    "stored_observations": _claim("observations", "Rows are of recorded steps."),
    "stored_hidden": Code(
        "observations", "{number} of the stored observations were recorded.",
        "Record outside of wrappers: `probe.record(Normalise(env))`.", write=percent,
    ),
    "stored_actions": _claim("actions", "Actions are stored as sent."),
    "stored_rewards": _claim("rewards", "Rewards are stored as paid, or rise with these."),
    "stored_ends": _claim("terminations", "Terminations are stored, time limits are none."),
    "stored_next": _claim("next observations", "Next observations are those after the step."),
    "stored_zero": _fault("stored rows", "Stored {subject} are 0.", "Are they lost, or clipped?"),
    "stored_negated": _fault(
        "stored rows", "Stored {subject} have the opposite sign.", "Store them as paid."
    ),
    "stored_shifted": _fault(
        "stored rows", "Stored {subject} are those of {at}.",
        "Is it stored before its step is made? Of several steps: declare `steps`.",
    ),
    "stored_unlike": Code(
        "stored rows", "Stored {subject} are not the recorded ones in {number} of the rows.",
        "Record outside of what changes them.", "error", percent,
    ),
    "stored_unclipped": _fault(
        "stored rows", "Stored {subject} are not the clipped ones that were sent.",
        "Clip first; a rollout has an `advantage`.",
    ),
    "stored_in_part": Code(
        "stored rows", "{number} of the stored {subject} differ from recorded ones.",
        "Is it meant so?", write=percent,
    ),
    "stored_related": Code(
        "stored rows", "Stored {subject} go with recorded ones by a correlation of {number}.",
        "If shaped, record outside of that.",
    ),
    "stored_ends_lost": _fault(
        "stored rows", "{number} of {threshold} terminations are not stored as terminated.",
        "Store `terminated` of the step.",
    ),
    "stored_time_limit": _fault(
        "stored rows", "{number} of {threshold} time limits are stored as terminated.",
        "Store `terminated` without `truncated`.",
    ),
    "stored_next_same": _fault(
        "stored rows", "The stored next observation is the observation itself.",
        "Store the row before `observation = next_observation`.",
    ),
    "stored_next_episode": _fault(
        "stored rows", "At {number} of {threshold} time limits the next episode's first "
        "observation is stored.", "Store `final_obs` of the infos.",
    ),
    "stored_values": _claim("values", "Values are what rewards can add up to."),
    "stored_values_beyond": _fault(
        "values", "Values reach {number}; recorded rewards add up to {threshold} at most.",
        "Look at the critic's loss; with a bonus: declare `temperature`.",
    ),
})  # fmt: skip
