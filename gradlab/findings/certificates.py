"""Derivatives of a simulator, and audits of a loss."""

from gradlab.findings.finding import register

register({})
