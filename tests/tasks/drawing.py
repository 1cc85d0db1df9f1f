"""Draws of a start law."""

import torch
from torch import Tensor

from gradlab.tasks import Task


def draw(task: Task, n: int, seed: int = 0) -> Tensor:
    return task.starts(n, torch.Generator().manual_seed(seed))
