"""Entry point of the `explaind` command."""


def main() -> None:
    """Run the command line. The import is inside: a spawned child re-runs this file."""
    from service.cli import app

    app()


if __name__ == "__main__":
    main()
