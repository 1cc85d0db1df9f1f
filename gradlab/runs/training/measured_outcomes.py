"""Outcomes of a measurement of weights, as numbers of a record and in words."""

from __future__ import annotations

SWITCHED, KEPT, NO_TRUTH, LOST = range(4)
OUTCOMES = (
    "switched: shown to be better",
    "kept: not shown to be worse",
    "kept: no true gradient here",
    "kept: the seed left the finite numbers",
)
