"""Training runs, their gradients and models."""

from gradlab.findings.finding import register

register({})
