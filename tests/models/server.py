"""An OpenAI-compatible server on the loopback, as small as a test needs, with the habits of real ones."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Http(ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that had enough is no error of ours
            super().handle_error(request, client_address)


class Server:
    """Answers chat completions with what `reply(body, number of the call)` returns.

    That is a dict, bytes as they are, or (status, dict) or (status, dict, headers).
    """

    def __init__(self, reply: Callable) -> None:
        self.bodies: list[dict] = []
        self.headers: list[Message] = []
        self.open = self.most_open = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:  # noqa: N802 (the library's name)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append(body)
                    server.headers.append(self.headers)
                    number = len(server.bodies)
                    server.open += 1
                    server.most_open = max(server.most_open, server.open)
                answer = reply(body, number)
                status, content, *more = answer if isinstance(answer, tuple) else (200, answer)
                with lock:
                    server.open -= 1
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in more[0].items() if more else ():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def completion(
    texts: list[str],
    finish: str = "stop",
    usage: tuple[int, int] | None = None,
    logprobs: list[float] | None = None,
    model: str = "m",
    cached: int | None = None,
    reasoning: int | None = None,
) -> dict:
    """A reply with one choice a text; `usage` holds prompt and completion tokens, `cached` and `reasoning` parts."""
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
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": choices}
    if usage:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        if cached is not None:
            reply["usage"]["prompt_tokens_details"] = {"cached_tokens": cached}
        if reasoning is not None:
            reply["usage"]["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return reply
