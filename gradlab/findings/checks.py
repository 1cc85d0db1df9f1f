"""Checks beside a measurement, and the status of its truth."""

from gradlab.findings.finding import register

register({})
