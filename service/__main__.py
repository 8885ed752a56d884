"""Entry point of the `explaind` command."""

import sys


def main() -> None:
    """Run the command line. Imports are inside: a spawned child re-runs this file."""
    from service.collecting import look_rarely

    look_rarely()
    from service.cli import app
    from service.errors import CommandError

    try:
        app()
    except CommandError as error:
        print(f"explaind: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
