"""Requests that go on at an even pace while something else happens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from servers import Client

PAUSE_SECONDS = 0.05

Ask = Callable[[Client, int], object]


@contextmanager
def steady_traffic(url: str, ask: Ask, *, clients: int = 2) -> Iterator[None]:
    """Clients that ask, with the number of their turn, until the block ends. What one of them
    raises is raised at the end.
    """
    ends = threading.Event()
    raised: list[BaseException] = []

    def run(number: int) -> None:
        client, turn = Client(url), number
        try:
            while not ends.wait(PAUSE_SECONDS):
                ask(client, turn)
                turn += clients
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    if raised:
        raise raised[0]
