"""Headers that keep a browser from doing more with an answer than reading it, on every answer.

Strict-Transport-Security is for the proxy that speaks TLS: only it knows that a name is never
served without.
"""

from collections.abc import Iterable

POLICY = b"content-security-policy"
GUARDS = {
    POLICY: b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Of a page that carries its own style; sent by its route."""

_LINES = {name: b"%s: %s\r\n" % header for name, header in zip(GUARDS, GUARDS.items(), strict=True)}
_ALL = b"".join(_LINES.values())
_BUT_POLICY = b"".join(line for name, line in _LINES.items() if name != POLICY)


def guard_lines(*, has_policy: bool) -> bytes:
    """The guards as lines of a head; has_policy: the answer brings its own policy, the only guard
    that routes set.
    """
    return _BUT_POLICY if has_policy else _ALL


def guards_beside(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The guards that an answer with these headers lacks."""
    own = {name for name, _ in headers}
    return [guard for guard in GUARDS.items() if guard[0] not in own]


def guarded(data: bytes) -> bytes:
    """The bytes of a whole answer of our own, with the guards added to its head."""
    end = data.find(b"\r\n\r\n") + 2
    return data[:end] + _ALL + data[end:]
