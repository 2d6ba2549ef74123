"""The thread that keeps a store's promises on time: commits within 20 ms, fsync within a second, a heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cope_train.models.leases import HEARTBEAT

COMMIT = 0.02  # seconds that an entry waits at most for others to be committed with
SYNC = 1.0


class Keeper:
    """Calls `commit`, `sync` and `beat` when they are due. What they raise is kept in `error`."""

    def __init__(self, commit: Callable[[], None], sync: Callable[[], None], beat: Callable[[], None]) -> None:
        self._commit, self._sync, self._beat = commit, sync, beat
        self._wake, self._stop = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._started = False

    def wake(self) -> None:
        """There is something to commit."""
        if not self._started:
            self._started = True
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Stop, and wait until it is so."""
        self._stop.set()
        self._wake.set()
        if self._started:
            self._thread.join()

    def _run(self) -> None:
        synced = beaten = time.monotonic()
        dirty = False
        try:
            while not self._stop.is_set():
                if self._wake.wait(SYNC if dirty else HEARTBEAT):
                    self._wake.clear()
                    self._stop.wait(COMMIT)
                    self._commit()
                    dirty = True
                now = time.monotonic()
                if dirty and now - synced >= SYNC:
                    self._sync()
                    synced, dirty = now, False
                if now - beaten >= HEARTBEAT:
                    self._beat()
                    beaten = now
        except BaseException as error:  # told to whoever uses the store next
            self.error = error
