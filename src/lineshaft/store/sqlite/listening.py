"""Hearing of commits: pokes from other processes, and a look at the change counter now and then."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence

from lineshaft.core.clock import Clock
from lineshaft.store.sqlite.connection import OwnConnection
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.machine import Poking
from lineshaft.store.sqlite.writer import Writer
from lineshaft.store.values import News

_log = logging.getLogger("lineshaft")

LOOK_EVERY_S = 0.25
"""How often the change counter is looked at, in case a poke was lost."""
LOOK_WAITS_MS = 20
"""How long such a look may block its event loop."""
ADDRESSES_GOOD_S = 1.0
"""For how long the addresses of the other processes are remembered."""

Listener = Callable[[News], None]


class Listening:
    """The listeners of this process, and the addresses of the others."""

    def __init__(self, files: StoreFiles, pokes: Poking, clock: Clock) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._listeners: dict[int, tuple[asyncio.AbstractEventLoop, Listener]] = {}
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
        self._addresses: list[str] = []
        self._read_at_s = -1e9
        self._gone: set[str] = set()
        self._pokes = pokes
        self._connection: OwnConnection | None = None
        self._clock = clock
        self._announced = False

    # Speaking, on the writer's thread

    def committed(self, news: News) -> None:
        """Poke whoever listens in other processes."""
        if not news:
            return
        now_s = self._clock.monotonic_s()
        if now_s - self._read_at_s >= ADDRESSES_GOOD_S:
            self._read_at_s = now_s
            if self._connection is None:
                self._connection = self._files.connect()
            rows = self._connection.execute("SELECT address FROM lineshaft_listener").fetchall()
            self._gone &= {row[0] for row in rows}
            self._addresses = [row[0] for row in rows if row[0] != self._pokes.address]
        for address in self._addresses.copy():
            if not self._pokes.send(address, news):
                self._addresses.remove(address)
                self._gone.add(address)

    # Listening, on an event loop

    def subscribe(
        self, loop: asyncio.AbstractEventLoop, listener: Listener, writer: Writer
    ) -> Callable[[], None]:
        with self._lock:
            number = next(self._numbers)
            self._listeners[number] = (loop, listener)
            if loop not in self._watches:
                self._watches[loop] = _Watch(self, loop, writer)

        def end() -> None:
            with self._lock:
                self._listeners.pop(number, None)
                watch = None
                if not any(other is loop for other, _ in self._listeners.values()):
                    watch = self._watches.pop(loop, None)
            if watch is not None:
                watch.close()

        return end

    def heard(self, news: News) -> None:
        """Tell every listener; called on the loop of one of them."""
        if news & News.LISTENERS:
            self._read_at_s = -1e9
        with self._lock:
            listeners = list(self._listeners.values())
        here = asyncio.get_running_loop()
        for loop, listener in listeners:
            if loop is here:
                listener(news)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(listener, news)

    def announced(self) -> None:
        self._announced = True

    @property
    def pokes(self) -> Poking:
        return self._pokes

    def take_gone(self) -> list[str]:
        """Addresses that did not answer since the last call, to be deleted."""
        gone, self._gone = self._gone, set()
        return list(gone)

    async def say_goodbye(self, writer: Writer) -> None:
        """Delete our own address, if it was ever told."""
        if self._announced:
            await writer.write(forget, [self._pokes.address])

    def connect(self) -> OwnConnection:
        return self._files.connect()

    def stop_listening(self) -> None:
        """Tell nobody any more. Each watch is closed on its own loop: its connection may be in use there."""
        here = asyncio.get_running_loop()
        with self._lock:
            watches, self._watches = self._watches, {}
            self._listeners.clear()
        for loop, watch in watches.items():
            if loop is here or not loop.is_running():
                watch.close()
            else:
                loop.call_soon_threadsafe(watch.close)

    def close(self) -> None:
        """Once the writer has stopped, on whose thread `committed` speaks."""
        self._pokes.close()
        if self._connection is not None:
            self._connection.close()


class _Watch:
    """One event loop's ear: the poke socket, and the change counter on a timer."""

    def __init__(self, listening: Listening, loop: asyncio.AbstractEventLoop, writer: Writer) -> None:
        self._listening = listening
        self._loop = loop
        self._connection = listening.connect()
        # It is used on the event loop, and a look that fails is made again soon.
        self._connection.execute(f"PRAGMA busy_timeout = {LOOK_WAITS_MS}")
        self._version = self._change_counter()
        self._stop_hearing = listening.pokes.hear(loop, self._on_poke)
        self._timer = loop.call_later(LOOK_EVERY_S, self._look)
        self._announced = loop.create_task(self._announce(writer))

    async def _announce(self, writer: Writer) -> None:
        if self._listening.pokes.address:
            self._listening.announced()
            await writer.write(_announce, [self._listening.pokes.address], News.LISTENERS)

    def _on_poke(self, news: News) -> None:
        if news:
            self._listening.heard(news)

    def _look(self) -> None:
        try:
            version = self._change_counter()
            if version != self._version:
                self._version = version
                self._listening.heard(News.ALL)
        except sqlite3.Error as error:
            _log.warning("The store cannot be looked at for commits of others now: %s", error)
        finally:
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _change_counter(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        self._timer.cancel()
        if not self._loop.is_closed():
            self._announced.cancel()
            self._stop_hearing()
        self._connection.close()


def _announce(connection: sqlite3.Connection, addresses: Sequence[str]) -> Sequence[None]:
    connection.executemany(
        "INSERT OR IGNORE INTO lineshaft_listener (address) VALUES (?)", [(address,) for address in addresses]
    )
    return [None] * len(addresses)


def forget(connection: sqlite3.Connection, addresses: Sequence[str]) -> Sequence[None]:
    """Delete the addresses of processes that are gone."""
    connection.executemany(
        "DELETE FROM lineshaft_listener WHERE address = ?", [(address,) for address in addresses]
    )
    return [None] * len(addresses)
