"""Make rules, their tests, dashboards and runbook: `python -m scripts.monitoring`."""

import argparse
import sys
from pathlib import Path

from scripts.monitoring.definitions import ROOT, load
from scripts.monitoring.files import made


def main() -> int:
    """Write what differs; with --check only name it, and exit with 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    only_names = parser.parse_args().check
    stale = [place for place, text in made(load()).items() if _text(ROOT / place) != text]
    for place, text in made(load()).items():
        if place in stale and not only_names:
            (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / place).write_text(text)
    for place in stale:
        print(f"{'stale' if only_names else 'made'}: {place}", file=sys.stderr)  # noqa: T201
    return 1 if stale and only_names else 0


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
