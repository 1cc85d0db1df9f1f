"""Ways of carrying θ: which actions of a path do; one row each, without torch.

    first   the first action alone (MPG eq. 6)
    all     every action, through the dynamics (MPG eq. 5, SVG, MAAC, BPTT)
    replayed  all, from states that the policy visits (what MBPO- and SVG-like loops follow)
    score   every action, through its density: no dynamics are differentiated (RP-PGM eq. 2.5)
    ivw     every action, both ways, each step's weights by inverse variance (IVW-H)
    ddcg    the same, by its density alone where the return is not smooth in the action (DDCG)
    total   both ways, mixed at every action on the way backwards (total propagation, PIPPS)

A row has the properties of a way that other modules read. Its weights λ and Jacobian J are a row of
`gradients.weighted_terms.TERMS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

Name = Literal["first", "all", "replayed", "score", "ivw", "ddcg", "total"]
TruthName = Literal["first", "all"]


@final
@dataclass(frozen=True)
class Way:
    """One way of carrying θ.

    Attributes:
        all_actions: every action carries θ, else the first alone.
        pathwise: the gradient is one of the dynamics alone.
        words: where θ is, in words.
        mixed: it is one of dynamics and densities; else of densities alone, where not pathwise.
    """

    all_actions: bool
    pathwise: bool
    words: str
    mixed: bool = False

    @property
    def differentiates(self) -> bool:
        """Are dynamics differentiated?"""
        return self.pathwise or self.mixed

    @property
    def truth(self) -> TruthName:
        """The true gradient that is estimated: scores and pathwise gradients share one."""
        return "all" if self.all_actions else "first"

    def carries(self, t: int) -> bool:
        """Does the action of step t carry θ?"""
        return self.all_actions or t == 0


WAYS: Mapping[str, Way] = {
    "first": Way(all_actions=False, pathwise=True, words="in the first action only"),
    "all": Way(all_actions=True, pathwise=True, words="in every action"),
    "replayed": Way(all_actions=True, pathwise=True, words="in every action, from replayed states"),
    "score": Way(all_actions=True, pathwise=False, words="in every action"),
    "ivw": Way(all_actions=True, pathwise=False, words="in every action", mixed=True),
    "ddcg": Way(all_actions=True, pathwise=False, words="in every action", mixed=True),
    "total": Way(all_actions=True, pathwise=False, words="in every action", mixed=True),
}
