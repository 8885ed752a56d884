"""Make rules, their tests, dashboards and runbook: `python -m scripts.monitoring`."""

import argparse
import sys

from scripts.monitoring.definitions import ROOT, load
from scripts.monitoring.files import made, stale


def main() -> int:
    """Write what differs; with --check only name it, and exit with 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    only_names = parser.parse_args().check
    texts = made(load())
    places = stale(texts, ROOT)
    for place in places:
        if not only_names:
            (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / place).write_text(texts[place])
        print(f"{'stale' if only_names else 'made'}: {place}", file=sys.stderr)  # noqa: T201
    return 1 if places and only_names else 0


if __name__ == "__main__":
    sys.exit(main())
