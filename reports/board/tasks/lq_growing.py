"""As lq_stable, but A grows."""

from lq_stable import UPDATE
from lq_stable import make as made

STAGES = {"early": 10, "middle": 30, "late": 90}
__all__ = ["STAGES", "UPDATE", "make"]


def make(stage, seed):
    return made(stage, seed, radii=(1.02, 1.1), stages=STAGES)
