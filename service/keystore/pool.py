"""Keys made ahead, so that the request path neither waits for a commit nor makes one."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, Thread

from service.keystore.errors import KeysUnavailableError
from service.keystore.wrapping import DataKey
from service.logs import log

BLOCK_KEYS = 1024
POOL_KEYS = 4 * BLOCK_KEYS
RETRY_SECONDS = 0.25
STOP_SECONDS = 5.0
FIRST_SECONDS = 10.0


class KeyPool:
    """Keys that are stored durably and that nobody has yet.

    A thread makes them by the block and starts with the first wish. Safe to call from several
    threads.
    """

    def __init__(self, make: Callable[[int], Sequence[DataKey]]) -> None:
        self._make = make
        self._keys: deque[DataKey] = deque()
        self._changed = Condition()
        self._is_low = False
        self._is_closed = False
        self._reason = "the key store has given no keys yet"
        self._thread: Thread | None = None

    def take(self) -> DataKey:
        """The next key, at once; only the very first is waited for. Cost: 0.2 us.

        Raises KeysUnavailableError when there is none.
        """
        if self._thread is None:
            self.wait(timeout_seconds=FIRST_SECONDS)
        try:
            key = self._keys.popleft()
        except IndexError:
            self._refill()
            raise self._unavailable() from None
        if not self._is_low and len(self._keys) < POOL_KEYS - BLOCK_KEYS:
            self._refill()
        return key

    @property
    def has_keys(self) -> bool:
        """There is one, or will be with the first wish."""
        return bool(self._keys) or self._thread is None

    def wait(self, *, timeout_seconds: float) -> None:
        """Until there are keys. Raises KeysUnavailableError."""
        self._refill()
        with self._changed:
            if not self._changed.wait_for(lambda: self._keys or self._is_closed, timeout_seconds):
                raise self._unavailable()

    def take_many(self, count: int, *, timeout_seconds: float) -> list[DataKey]:
        """So many keys, waited for if need be, or none. Raises KeysUnavailableError."""
        if self._thread is None:
            self.wait(timeout_seconds=FIRST_SECONDS)
        taken: list[DataKey] = []
        deadline = time.monotonic() + timeout_seconds
        while True:
            with suppress(IndexError):
                while len(taken) < count:
                    taken.append(self._keys.popleft())
            self._refill()
            left = deadline - time.monotonic()
            if len(taken) == count:
                return taken
            with self._changed:
                if self._is_closed or left <= 0:
                    break
                if not self._keys:
                    self._changed.wait(left)
        self._keys.extend(taken)
        raise self._unavailable()

    def close(self) -> Sequence[DataKey]:
        """End the thread; the keys nobody took."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        left = []
        with suppress(IndexError):
            while True:
                left.append(self._keys.popleft())
        return left

    def _unavailable(self) -> KeysUnavailableError:
        return KeysUnavailableError("the key store is closed" if self._is_closed else self._reason)

    def _refill(self) -> None:
        with self._changed:
            if self._is_closed or len(self._keys) >= POOL_KEYS - BLOCK_KEYS:
                return
            self._is_low = True
            if self._thread is None:
                self._thread = Thread(target=self._run, name="key-store", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_low and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
            self._fill()

    def _fill(self) -> None:
        try:
            made = self._make(BLOCK_KEYS)
        except KeysUnavailableError as error:
            log.warning("key_store_unavailable", keys_left=len(self._keys), reason=str(error))
            with self._changed:
                self._reason = str(error)
                self._changed.wait_for(lambda: self._is_closed, RETRY_SECONDS)
            return
        with self._changed:
            self._keys.extend(made)
            self._is_low = len(self._keys) < POOL_KEYS
            self._reason = "keys are used faster than the key store makes them"
            self._changed.notify_all()
