"""A worker process over `job_store`: the product's own in all but where the work comes from."""

import argparse
from pathlib import Path

from job_store import open_stored_work

from service.logs import configure_logs
from service.settings import Settings
from service.worker.running import Options, run_worker


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--metrics-socket", type=Path)
    given = parser.parse_args()
    configure_logs()
    options = Options(concurrency=given.concurrency, metrics_socket=given.metrics_socket)
    run_worker(Settings.load(), open_stored_work, options)


if __name__ == "__main__":
    main()
