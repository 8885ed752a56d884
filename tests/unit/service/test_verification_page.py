"""What docs/verification.md shows is what the format makes of its example."""

import hashlib
import hmac
import re
from pathlib import Path

from reference_log import Bundle, ReferenceLog, root_of

from service.verify import CONSISTENT, verify_file

PAGE = Path(__file__).parents[3] / "docs" / "verification.md"


def example() -> ReferenceLog:
    log = ReferenceLog()
    log.add('{"age":33}')
    log.add('{"age":34}')
    return log


def shown(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_bundle_on_the_page_is_the_reference_s_and_verifies(tmp_path: Path) -> None:
    (content,) = shown("jsonl")
    assert content.encode() == example().bundle().content()
    path = tmp_path / "bundle"
    path.write_text(content)
    assert verify_file(path)["verdict"] == CONSISTENT
    path.write_text(content.replace('age\\":33', 'age\\":43'))
    assert verify_file(path)["findings"][0]["seq"] == 0


def test_every_value_of_the_example_is_recomputed_from_the_page() -> None:
    (content,) = shown("jsonl")
    bundle, log = Bundle.read(content.encode()), example()
    told = dict(
        re.findall(r"^\| ([a-z ]+\d?) \| `([0-9a-f]+)` \|$", PAGE.read_text(), re.MULTILINE)
    )
    leaves = [hashlib.sha256(b"\0" + entry["header"].encode()).digest() for entry in bundle.entries]
    root = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    key = bytes.fromhex(bundle.entries[0]["key"])
    payload = bundle.entries[0]["payload"].encode()
    assert told == {
        "public key": log.signer.public.hex(),
        "fingerprint": hashlib.sha256(log.signer.public).hexdigest(),
        "key id": log.signer.key_id.hex(),
        "commitment of entry 0": hmac.digest(key, payload, "sha256").hex(),
        "leaf 0": leaves[0].hex(),
        "leaf 1": leaves[1].hex(),
        "root": root.hex(),
    }
    assert root == root_of(log.leaves)
