"""Telling other processes on the same file that something was committed.

Every process that wants to know binds a datagram socket in the kernel's abstract namespace, so that there is
no file to clean up, and writes its address into the store. A poke carries what happened as one letter each and
is never waited for; one that is lost costs a fraction of a second, until the change counter is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable

from lineshaft.core.ident import SystemChance
from lineshaft.store.values import News


class Pokes:
    """The socket of one store in one process."""

    def __init__(self) -> None:
        self.address = ""
        self._socket: socket.socket | None = None
        if sys.platform == "linux":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self.address = f"lineshaft-{SystemChance().run_ids(0, 1)[0]}"
            self._socket.bind(f"\0{self.address}")

    def hear(self, loop: asyncio.AbstractEventLoop, heard: Callable[[News], None]) -> Callable[[], None]:
        """Call `heard` on the loop with what others poke, until what is returned is called."""
        if self._socket is None:
            return lambda: None
        fileno = self._socket.fileno()
        loop.add_reader(fileno, lambda: heard(self._received()))

        def end() -> None:
            loop.remove_reader(fileno)

        return end

    def _received(self) -> News:
        """All that was heard since the last call."""
        heard = News(0)
        while self._socket is not None:
            try:
                message = self._socket.recv(16)
            except (BlockingIOError, InterruptedError):
                break
            heard |= News(message[0] & News.ALL.value) if message else News.ALL
        return heard

    def send(self, address: str, news: News) -> bool:
        """Poke one process; false if it is not there any more."""
        if self._socket is None or address == self.address:
            return True
        try:
            self._socket.sendto(bytes([news.value]), f"\0{address}")
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # Its buffer is full: it has pokes enough.
            return True
        return True

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
