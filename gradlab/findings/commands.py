"""What a command chose and what came of it: records, fitted models and networks."""

from gradlab.findings.finding import Code, register
from gradlab.wording import percent

_ALONG = "the {subject}'s derivatives: squared error less by {value}, along {at} ({n} rows)."


def _near_one(share: float, digits: int = 2) -> str:
    return percent(share, digits + 1)


register(
    {
        "transitions": Code("Record and simulator", "{subject} and the simulator: {at}."),
        "unstepped": Code(
            "Record and simulator", "The simulator could not step the rows of {subject}: {at}"
        ),
        "recorded": Code("Record", "Without --data {n} transitions of {subject} are in {at}."),
        "fitted": Code("Fit", "{subject}: fitted on {n} rows, best after {at} epochs."),
        "unfinished": Code("Fit", "{subject}: the last epoch was the best.", "Raise {at}."),
        "explained": Code(
            "Explained", "{subject}: {value} of the variance explained ({n} rows).", write=_near_one
        ),
        "dropped": Code("Diverged", "{subject}: dropped, since they diverged: member {at}."),
        "constant": Code(
            "No effect known", "{subject}: constant in these data, so no effect is known: {at}."
        ),
        "repeated": Code("Repeated rows", "{subject}: {n} rows repeat an earlier (s, a)."),
        "spectral_norms": Code("Spectral norms", "{subject}: spectral norms {at}."),
        "dd_helps": Code("--loss dd", f"Directional derivatives can help with {_ALONG}"),
        "dd_useless": Code("--loss dd", f"Directional derivatives cannot help with {_ALONG}"),
        "dd_open": Code("--loss dd", f"Directional derivatives may not help with {_ALONG}"),
    }
)
