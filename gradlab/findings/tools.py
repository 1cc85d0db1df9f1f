"""Jacobians, logs, remedies, races, sweeps."""

from gradlab.findings.finding import register

register({})
