"""What proves that a log has an event: the documents of /proof and /log/consistency."""

from typing import Annotated

from pydantic import Field

from schemas.strict_document import Document


class ProvenSection(Document):
    """What a record about several subjects says of one of them, or of all."""

    key: Annotated[str, Field(description="In hexadecimal.")]
    text: Annotated[str, Field(description="Byte for byte as committed to.")]


class ProvenEvent(Document):
    """One event in the log; payload and key are null once it is erased. One about several subjects
    has sections instead, null where they are erased.

    RFC 6962: the leaf is SHA-256 of a zero byte and the header's UTF-8 text; proof leads from it,
    hash by hash, to the checkpoint's root. HMAC-SHA256 of the payload's text under the key is the
    commitment the header names.
    """

    seq: int
    header: Annotated[str, Field(description="JSON, byte for byte as it was hashed.")]
    proof: Annotated[list[str], Field(description="Hashes in base64, from the leaf up.")]
    payload: Annotated[str | None, Field(description="JSON, byte for byte as committed to.")] = None
    key: Annotated[str | None, Field(description="In hexadecimal.")] = None
    sections: list[ProvenSection | None] | None = None


class Proof(Document):
    """The answer to GET /explanations/{request_id}/proof."""

    request_id: str
    log: Annotated[str, Field(description="The checkpoint's first line.")]
    vkey: Annotated[str, Field(description="C2SP verifier key of the log's checkpoints.")]
    checkpoint: Annotated[str, Field(description="C2SP signed note; covers every entry.")]
    entries: list[ProvenEvent]


class Consistency(Document):
    """The answer to GET /log/consistency: PROOF(from, D[to]) of RFC 6962, section 2.1.2."""

    log: str
    from_: Annotated[int, Field(alias="from")]
    to: int
    proof: Annotated[list[str], Field(description="Hashes in base64.")]
