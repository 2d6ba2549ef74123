"""An OpenAI-compatible server on the loopback, as small as a test needs, with the habits of real ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Answers chat completions with what `reply(body, number of the call)` returns: a dict, or (status, dict)."""

    def __init__(self, reply: Callable) -> None:
        self.bodies: list[dict] = []
        self.open = self.most_open = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802 (the library's name)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append(body)
                    number = len(server.bodies)
                    server.open += 1
                    server.most_open = max(server.most_open, server.open)
                answer = reply(body, number)
                status, content = answer if isinstance(answer, tuple) else (200, answer)
                with lock:
                    server.open -= 1
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def completion(texts: list[str], finish: str = "stop", usage: tuple[int, int] | None = None, logprobs=None) -> dict:
    """A reply with one choice a text."""
    choices = [
        {
            "index": i,
            "finish_reason": finish,
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": [{"token": "t", "logprob": p, "top_logprobs": []} for p in logprobs]}
            if logprobs
            else None,
        }
        for i, text in enumerate(texts)
    ]
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    if usage:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return reply
