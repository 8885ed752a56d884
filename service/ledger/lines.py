"""How a proven event is written: one line of a bundle, one entry of a proof."""

from service.evidence import ProvenEvent
from service.ledger.ledger import Path
from service.ledger.notes import hashes_text


def proven_line(
    seq: int, event: ProvenEvent, path: Path, *, is_opened: bool = True
) -> dict[str, object]:
    """The header as it was hashed, the proof that the log has it at seq, and the opening unless it
    is erased, or not for who asks.
    """
    opening = (event.opening if is_opened else None) or (None,)
    line: dict[str, object] = {
        "seq": seq,
        "header": event.header.decode(),
        "proof": hashes_text(path),
    }
    shown = [
        None if section is None else {"key": section.key.hex(), "text": section.text.decode()}
        for section in opening
    ]
    if len(shown) > 1:
        return line | {"sections": shown}
    only = shown[0] or {}
    return line | {"payload": only.get("text"), "key": only.get("key")}
