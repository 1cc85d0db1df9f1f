"""The four blocks of J = ∂(s', r)/∂(s, a), and names for rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.systems.system import BLOCKS

SYMBOLS = {
    "A": "∂s′/∂s", "B": "∂s′/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a", "parameters": "∂s′/∂p",
}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """Of state and action coordinates."""

    state: tuple[str, ...]
    action: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        return (*(f"{name}′" for name in self.state), "r")

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.state, *self.action)

    def block(self, name: str) -> tuple[slice, slice]:
        """Rows and columns of one block."""
        ds = len(self.state)
        after, reward = slice(0, ds), slice(ds, ds + 1)
        rows = after if name in ("A", "B") else reward
        return rows, slice(0, ds) if name in ("A", "r_s") else slice(ds, None)


__all__ = ["BLOCKS", "SYMBOLS", "Names"]
