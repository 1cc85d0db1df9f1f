"""One step's weight at two lengths of a segment: 1 where it is summed, L / L′ where averaged."""

import pytest
import torch

from gradlab.tools.audit.compute import audit
from tests.auditing import sound
from tests.auditing.dreaming import dreamer
from tests.auditing.networks import Dynamics, Gaussian, states


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
