"""What somebody may do to a bundle, and what a verifier must then say of which entry."""

import base64
import copy
from collections.abc import Callable
from dataclasses import dataclass

from reference_log import Bundle

PLACE = 5
"""The entry that is tampered with; the bundle has at least nine, and holds the whole log."""


END = -1


@dataclass(frozen=True)
class Change:
    """seq: the first entry the verdict must name; None: the whole, END: what comes after it."""

    make: Callable[[Bundle], None]
    seq: int | None
    problem: str

    def is_named_by(self, found: tuple[int | None, str], size: int) -> bool:
        """What the verdict names first is this."""
        return found[0] == (size if self.seq == END else self.seq) and self.problem in found[1]


def _edit(bundle: Bundle) -> None:
    header = bundle.entries[PLACE]["header"]
    bundle.entries[PLACE]["header"] = header.replace('"tenant":"default"', '"tenant":"another"')


def _whitespace(bundle: Bundle) -> None:
    bundle.entries[PLACE]["header"] += " "


def _delete(bundle: Bundle) -> None:
    del bundle.entries[PLACE]


def _swap(bundle: Bundle) -> None:
    first, second = bundle.entries[PLACE : PLACE + 2]
    first["seq"], second["seq"] = PLACE + 1, PLACE
    bundle.entries[PLACE : PLACE + 2] = [second, first]


def _insert(bundle: Bundle) -> None:
    forged = copy.deepcopy(bundle.entries[PLACE])
    forged["seq"] = len(bundle.entries)
    bundle.entries.append(forged)


def _reorder(bundle: Bundle) -> None:
    bundle.entries[PLACE : PLACE + 2] = bundle.entries[PLACE : PLACE + 2][::-1]


def _truncate(bundle: Bundle) -> None:
    del bundle.entries[PLACE:]
    bundle.trailer = b""


def _duplicate(bundle: Bundle) -> None:
    bundle.entries.insert(PLACE, copy.deepcopy(bundle.entries[PLACE]))


def _replace(bundle: Bundle) -> None:
    bundle.entries[PLACE] = copy.deepcopy(bundle.entries[PLACE - 1]) | {"seq": PLACE}


def _payload(bundle: Bundle) -> None:
    payload = bundle.entries[PLACE]["payload"]
    changed = payload.translate(str.maketrans("0123456789", "1234567890"))
    assert changed != payload
    bundle.entries[PLACE]["payload"] = changed


def _lengthened(bundle: Bundle) -> None:
    bundle.entries[PLACE]["payload"] += " "


def _key(bundle: Bundle) -> None:
    bundle.entries[PLACE]["key"] = "00" * 32


def _hidden(bundle: Bundle) -> None:
    bundle.entries[PLACE] |= {"payload": None, "key": None}


def _proof(bundle: Bundle) -> None:
    node = bytearray(base64.b64decode(bundle.entries[PLACE]["proof"][0]))
    node[0] ^= 1
    bundle.entries[PLACE]["proof"][0] = base64.b64encode(node).decode()


def _longer_proof(bundle: Bundle) -> None:
    bundle.entries[PLACE]["proof"] *= 9


def _shorter_proof(bundle: Bundle) -> None:
    bundle.entries[PLACE]["proof"].pop()


def _no_text(bundle: Bundle) -> None:
    bundle.entries[PLACE]["header"] = None


def _unknown_member(bundle: Bundle) -> None:
    bundle.entries[PLACE]["note"] = "trust me"


def _checkpoint(bundle: Bundle) -> None:
    origin, size, rest = bundle.manifest["checkpoint"].split("\n", 2)
    bundle.manifest["checkpoint"] = f"{origin}\n{int(size) + 1}\n{rest}"


def _hidden_tail(bundle: Bundle) -> None:
    del bundle.entries[PLACE:]
    bundle.manifest |= {"seqs": [[0, PLACE - 1]], "count": PLACE}


def _hidden_entry(bundle: Bundle) -> None:
    last = len(bundle.entries) - 1
    del bundle.entries[PLACE]
    bundle.manifest |= {"seqs": [[0, PLACE - 1], [PLACE + 1, last]], "count": last}


def _unended(bundle: Bundle) -> None:
    bundle.trailer = bundle.trailer.removesuffix(b"\n")


def _selection(bundle: Bundle) -> None:
    bundle.manifest["selection"] = {"model": "another"}


def _digest(bundle: Bundle) -> None:
    bundle.trailer = bundle.trailer.replace(b"sha256 ", b"sha256 0", 1)


def _appended(bundle: Bundle) -> None:
    bundle.trailer += bundle.trailer


CHANGES = {
    "edit": Change(_edit, PLACE, "changed"),
    "a header's white space": Change(_whitespace, PLACE, "changed"),
    "delete": Change(_delete, PLACE, "missing"),
    "swap": Change(_swap, PLACE, "changed"),
    "insert": Change(_insert, END, "extra"),
    "reorder": Change(_reorder, PLACE, "missing"),
    "truncate the tail": Change(_truncate, PLACE, "missing"),
    "duplicate": Change(_duplicate, PLACE, "duplicate"),
    "replace": Change(_replace, PLACE, "changed"),
    "payload": Change(_payload, PLACE, "payload or key changed"),
    "a payload's length": Change(_lengthened, PLACE, "payload changed"),
    "key": Change(_key, PLACE, "payload or key changed"),
    "a payload left out": Change(_hidden, PLACE, "payload missing"),
    "proof": Change(_proof, PLACE, "changed"),
    "a proof too long": Change(_longer_proof, PLACE, "changed"),
    "a proof too short": Change(_shorter_proof, PLACE, "changed"),
    "no header": Change(_no_text, PLACE, "malformed"),
    "unknown member": Change(_unknown_member, PLACE, "members of an entry"),
    "checkpoint": Change(_checkpoint, None, "signature is not that of the text"),
    "an entry nobody is to miss": Change(_hidden_entry, PLACE, "not the whole log"),
    "a tail nobody is to miss": Change(_hidden_tail, PLACE, "not the whole log"),
    "what was selected": Change(_selection, None, "no trailer of these lines"),
    "trailer": Change(_digest, None, "trailer: the signature"),
    "something after the trailer": Change(_appended, None, "no trailer of these lines"),
    "the last line feed": Change(_unended, None, "no trailer of these lines"),
}
