"""What a measurement means: errors, horizons, growth, causes, choice, comparison."""

from gradlab.findings.finding import register

register({})
