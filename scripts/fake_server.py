"""An OpenAI-compatible server on the loopback whose replies depend on nothing but the request; counts what it is asked.

    python scripts/fake_server.py [--delay SECONDS]

prints its address and serves until its standard input is closed. As a module, `Server` runs it on a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable


class Server:
    """Answers after `delay` seconds; `asked` counts each request body that was answered, by its hash."""

    def __init__(self, reply: Callable[[dict], list[str]], delay: float = 0.0) -> None:
        """`reply` gives the texts of a request's choices."""
        self._reply, self._delay = reply, delay
        self.asked: Counter[str] = Counter()
        self.total = 0
        self.reached = threading.Condition()
        self._loop = asyncio.new_event_loop()
        listening = threading.Event()
        self.url = ""

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=4096))
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            listening.set()
            self._loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        listening.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                sizes = [line.split(":")[1] for line in lines if line.lower().startswith("content-length")]
                data = await reader.readexactly(int(sizes[0])) if sizes else b"{}"
                if self._delay:
                    await asyncio.sleep(self._delay)
                body = self._answer(data) if lines[0].startswith("POST") else b'{"object": "list", "data": []}'
                kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                writer.write(kind + str(len(body)).encode() + b"\r\n\r\n" + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client was killed, or is done
        finally:
            writer.close()

    def _answer(self, data: bytes) -> bytes:
        asked = json.loads(data)
        with self.reached:
            self.asked[hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()] += 1
            self.total += 1
            self.reached.notify_all()
        texts = self._reply(asked)
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 20, "completion_tokens": 8 * len(texts), "total_tokens": 20 + 8 * len(texts)}
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": choices}
        return json.dumps(reply | {"usage": usage}).encode()


def plan_or_answer(asked: dict) -> list[str]:
    """Texts that depend on model, prompt, seed and place: plans without figures, answers that may differ."""
    said = json.dumps([asked["model"], asked["messages"], asked.get("seed"), asked.get("temperature")])
    return [_text(f"{said} {index}") for index in range(asked.get("n") or 1)]


def _text(said: str) -> str:
    number = int(hashlib.sha256(said.encode()).hexdigest(), 16)
    words = ("add", "share", "count", "compare", "halve", "order")
    plan = " then ".join(words[number // 10**place % len(words)] for place in range(3))
    return f"First {plan}.\n\\boxed{{{number % 3}}}" if "boxed" in said else f"First {plan}."


def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each reply")
    server = Server(plan_or_answer, parser.parse_args().delay)
    print(server.url, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
