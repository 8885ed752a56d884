"""The Prefer header (RFC 7240): how long a client waits for an explanation that is queued."""

from typing import NamedTuple

LONGEST_WAIT_SECONDS = 30


class Preference(NamedTuple):
    """wait_seconds: None where the client leaves it to the service; applied: what to answer in
    Preference-Applied when it was heeded.
    """

    wait_seconds: float | None = None
    applied: str | None = None


NO_PREFERENCE = Preference()


def parse_prefer(header: str | None) -> Preference:
    """`respond-async` (do not wait) and `wait=N` (at most 30 s); anything else is ignored, as the
    standard asks. Both together: wait so long, then answer without.
    """
    if header is None:
        return NO_PREFERENCE
    asked = _preferences(header)
    wait = asked.get("wait", "")
    applied = ["respond-async"] if "respond-async" in asked else []
    if wait.isascii() and wait.isdecimal():
        seconds = min(int(wait[:6]), LONGEST_WAIT_SECONDS)
        return Preference(seconds, ", ".join([*applied, f"wait={seconds}"]))
    return Preference(0, applied[0]) if applied else NO_PREFERENCE


def _preferences(header: str) -> dict[str, str]:
    """Names to values; of a preference given twice the first counts."""
    found: dict[str, str] = {}
    for item in header.split(","):
        name, _, value = item.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found
