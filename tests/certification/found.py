"""Findings of a certificate with where they are, of its table of entries."""

from types import SimpleNamespace


def found(certificate):
    """A row per finding: it, its block, stratum and source, and its entries."""
    entries = certificate.table("entries")
    rows = []
    for k, finding in enumerate(certificate.findings):
        mine = list(entries[entries["finding"] == k].itertuples())
        at = {name: getattr(mine[0], name) for name in ("block", "stratum", "source")}
        names = dict(code=finding.code, decision=finding.decision, value=finding.value)
        rows.append(
            SimpleNamespace(finding=finding, entries=mine, said=finding.said, **names, **at)
        )
    return rows


def wrong(certificate):
    """Those that fail it."""
    return [each for each in found(certificate) if each.decision == "fail"]


def codes(certificate):
    return {each.code for each in certificate.findings}
