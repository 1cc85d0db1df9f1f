"""Settings of an ensemble and its fit, and those of the papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import OwnNetwork, check_network, network_name
from gradlab.options import COUNT, Within, check


@dataclass(frozen=True)
class ModelSettings:
    """Settings of an ensemble and its fit; the papers' widths are `MBPO` and `SMALL`.

    Attributes:
        members, first_member: members are numbered from `first_member`; one number and seed give
            one network, whatever the other members.
        hidden, activation: of every member.
        network: type of model, "gaussian" (probabilistic), "deterministic", or an `OwnNetwork`,
            which leaves `hidden` and `activation` aside.
        residual: predict s' − s.
        reward: a head for the reward.
        spectral: which layers are held at norm 1 (`networks.spectral`), or None.
        learning_rate, weight_decay: Adam's.
        batch: rows per step and member.
        epochs: at most; seconds: at most, too.
        patience: epochs without a lower held-out loss after which a member stops; None: never.
        held_out: share of the rows that stopping is judged by.
        bootstrap: each member sees rows drawn with replacement; False: all rows.
        precision: "float32" or "float64".
    """

    members: COUNT = 7
    hidden: tuple[COUNT, ...] = (200, 200, 200, 200)
    activation: str = "silu"
    network: str | OwnNetwork = "gaussian"
    residual: bool = True
    reward: bool = True
    spectral: spectral.Which | None = None
    learning_rate: Annotated[float, Within(above=0)] = 1e-3
    weight_decay: Annotated[float, Within(0)] = 0.0
    batch: COUNT = 256
    epochs: COUNT = 200
    seconds: float | None = None
    patience: COUNT | None = 5
    held_out: float = 0.1
    bootstrap: bool = True
    precision: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    first_member: int = 0
    seed: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the members."""
        return tuple(range(self.first_member, self.first_member + self.members))

    def plain(self) -> dict[str, Any]:
        """All of them as JSON, a network by its name."""
        return asdict(self) | {"network": network_name(self.network)}

    def __post_init__(self) -> None:
        check_network(self.network)
        check(self)


MBPO = ModelSettings()  # DDPPO and MAAC use the same network
SMALL = ModelSettings(hidden=(64, 64))  # for low-dimensional tasks
RP_PGM = ModelSettings(  # five layers of ReLU units, its width is not printed
    members=1, activation="relu", spectral="all_but_last", bootstrap=False
)
PRESETS: Mapping[str, ModelSettings] = {"mbpo": MBPO, "small": SMALL, "rp-pgm": RP_PGM}
