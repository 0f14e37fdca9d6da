"""Tells every open page that the ledger has grown (server-sent events, WHATWG HTML §9.2).

One task asks the ledger for its head, however many pages are open; a page that listens too slowly misses
nothing, since an event says only *that* there is something new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

PERIOD: Final = 0.5
"""Seconds between two looks at the ledger's head."""
KEEPALIVE: Final = 15.0
MAX_PAGES: Final = 64


class Pulse:
    """Wakes the listeners when *head* changes."""

    def __init__(self, head: Callable[[], object], period: float = PERIOD) -> None:
        self._head = head
        self._period = period
        self._listeners: set[asyncio.Event] = set()

    async def run(self) -> None:
        """Until cancelled. A ledger that does not answer is asked again: pages stay as they are meanwhile."""
        seen: object = None
        while True:
            head = await asyncio.to_thread(self._head)
            if head != seen:
                seen = head
                self.wake()
            await asyncio.sleep(self._period)

    def wake(self) -> None:
        """Something else than the ledger changed, such as a station that was started."""
        for listener in self._listeners:
            listener.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One page's stream, until it goes away. 503 if MAX_PAGES listen already."""
        if len(self._listeners) >= MAX_PAGES:
            raise web.HTTPServiceUnavailable(text="Too many pages are open.\n")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        grown = asyncio.Event()
        self._listeners.add(grown)
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while True:
                try:
                    await asyncio.wait_for(grown.wait(), KEEPALIVE)
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                grown.clear()
                await response.write(b"event: grown\ndata:\n\n")
        except ConnectionResetError:
            return response
        finally:
            self._listeners.discard(grown)
