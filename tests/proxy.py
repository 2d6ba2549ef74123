"""A reverse proxy that spoils some of the calls that pass: what real servers and networks do, by a seeded plan.

    python tests/proxy.py --target http://127.0.0.1:8000 --rate 0.3 --seed 0 --port 8001

then point `base_url` at http://127.0.0.1:8001/v1. What becomes of a call follows from the seed and its number alone.
Ctrl-C prints how many calls there were of each kind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

REFUSALS = {"429": 429, "429 retry-after": 429, "500": 500, "502": 502}
SPOILED = ["reset", "truncated", "empty", "fewer", "wrong model", "drip"]
FAULTS = [*REFUSALS, "hang", *SPOILED]


class Message(NamedTuple):
    """A request or a response: its first line, headers with names in lower case, and body."""

    start: str
    headers: dict[str, str]
    body: bytes


class Proxy:
    """Passes calls on to `target`, and spoils a share `rate` of the POSTs. `calls` says what became of each."""

    def __init__(
        self, target: str, rate: float, seed: int = 0, retry_after: float = 1.0, drip: float = 2.0, port: int = 0
    ) -> None:
        """`target` is scheme, host and port; `retry_after` and `drip` (the time one reply drips) are in seconds."""
        self.calls: list[str] = []
        self.port = port
        self._target = urlsplit(target)
        self._rate, self._seed, self._retry_after, self._drip = rate, seed, retry_after, drip

    @property
    def url(self) -> str:
        """What to give as `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def fate(self, number: int) -> str:
        """What becomes of call 0, 1, ...: a fault, or "passed"."""
        dice = random.Random(f"{self._seed}:{number}")
        return dice.choice(FAULTS) if dice.random() < self._rate else "passed"

    async def serve(self, up: threading.Event | None = None) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        if up:
            up.set()
        async with server:
            await server.serve_forever()

    def __enter__(self) -> Proxy:
        up = threading.Event()

        async def run() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            with suppress(asyncio.CancelledError):
                await self.serve(up)

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        self._thread.start()
        up.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                request = await _read(reader)
                fate = "passed"
                if request.start.startswith("POST"):
                    fate = self.fate(len(self.calls))
                    self.calls.append(fate)
                await self._answer(request, fate, reader, writer)
        writer.close()

    async def _answer(
        self, request: Message, fate: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if fate in REFUSALS:
            extra = f"retry-after: {self._retry_after}\r\n" if fate == "429 retry-after" else ""
            body = json.dumps({"error": {"message": f"spoiled: {fate}"}}).encode()
            writer.write(_response(f"HTTP/1.1 {REFUSALS[fate]} Spoiled", body, extra))
        elif fate == "hang":
            await reader.read()  # until the client has had enough
            writer.close()
        else:
            start, body = await self._pass_on(request)
            await self._spoil(fate, start, body, writer)
        await writer.drain()

    async def _spoil(self, fate: str, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if fate == "reset":
            writer.write(_response(start, body)[: -len(body) // 2])
            await writer.drain()
            # With no time to linger, closing is a reset.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif fate == "drip":
            data = _response(start, body)
            size = -(-len(data) // 10)
            for begin in range(0, len(data), size):
                writer.write(data[begin : begin + size])
                await writer.drain()
                await asyncio.sleep(self._drip / 10)
        else:
            writer.write(_response(start, _spoiled(fate, body)))

    async def _pass_on(self, request: Message) -> tuple[str, bytes]:
        reader, writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        headers = request.headers | {"connection": "close", "host": self._target.netloc, "accept-encoding": "identity"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{request.start}\r\n{lines}\r\n".encode() + request.body)
        try:
            response = await _read(reader)
        finally:
            writer.close()
        return response.start, response.body


def _spoiled(fate: str, body: bytes) -> bytes:
    if fate == "passed":
        return body
    if fate == "truncated":
        return body[: len(body) // 2]
    reply = json.loads(body)
    if fate == "empty":
        reply["choices"] = []
    elif fate == "fewer":
        reply["choices"] = reply.get("choices", [])[:1]
    elif fate == "wrong model":
        reply["model"] = "another-model"
    return json.dumps(reply).encode()


async def _read(reader: asyncio.StreamReader) -> Message:
    """One message of HTTP/1.1 whose length is given."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Message(start, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def _response(start: str, body: bytes, extra: str = "") -> bytes:
    return f"{start}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="scheme, host and port of the real server")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retry-after", type=float, default=1.0)
    parser.add_argument("--drip", type=float, default=2.0)
    parser.add_argument("--port", type=int, default=8001)
    options = parser.parse_args()
    proxy = Proxy(options.target, options.rate, options.seed, options.retry_after, options.drip, options.port)
    print(f"listening on {proxy.url}", file=sys.stderr)
    with suppress(KeyboardInterrupt):
        asyncio.run(proxy.serve())
    for kind, count in Counter(proxy.calls).most_common():
        print(f"{count:6} {kind}")


if __name__ == "__main__":
    main()
