"""Other people's packages are extras: gradlab imports without them, and says how to get them."""

from __future__ import annotations

from gradlab.errors import InputError


def missing(package: str, extra: str) -> InputError:
    """The error where `package` cannot be imported."""
    return InputError(f"{package} is not installed: pip install 'gradlab[{extra}]'")
