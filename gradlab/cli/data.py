"""Recorded transitions named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradlab.data.trajectories import Trajectories
    from gradlab.tasks import Task


def named_data(name: str, task: Task) -> Trajectories:
    """A file of gradlab's own, or a Minari dataset as `minari:ID` or folder.

    Raises:
        InputError: there is none, it is damaged, or its states or actions have another width.
    """
    from gradlab.data import minari_datasets, trajectories, transitions

    foreign = minari_datasets.is_dataset(name)
    data = minari_datasets.read(name) if foreign else trajectories.load(name)
    transitions.check_widths(data, task.simulator.state_dim, task.simulator.action_dim)
    return data
