"""A user's own loop, looked at by a probe."""

from gradlab.findings.finding import register

register({})
