"""Requests broken a little, at random."""

import random

SPLICES = [
    b"\r\n", b"\r\n\r\n", b"\x00", b"\xff", b"%00", b"%", b"0\r\n\r\n", b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"HTTP/1.0", b"CONNECT ", b"*", b"GET http://evil.example/ HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"{" * 40, b"1e999", b"NaN", b'"\\ud800"', b"\xef\xbb\xbf",
]  # fmt: skip


def mutated(rng: random.Random, seed: bytes) -> bytes:
    """The seed after one to four cuts, flips, doublings and splices."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.randint(0, 20))
        kind = rng.randrange(5)
        if kind == 0:
            del data[start:end]
        elif kind == 1:
            data[start:end] = rng.randbytes(end - start)
        elif kind == 2:
            data[start:start] = data[start:end]
        elif kind == 3:
            data[start:start] = rng.choice(SPLICES)
        else:
            del data[start:]
    return bytes(data)
