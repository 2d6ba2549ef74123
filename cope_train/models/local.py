"""Models that run here, on transformers and PEFT: one base, and an adapter for each role."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from cope_train.errors import NotRunnableHere, UserError
from cope_train.models.adapters import check_base
from cope_train.models.folders import resolve
from cope_train.models.identity import completion_key, weights_fingerprint
from cope_train.models.loading import load_model, load_tokenizer, render
from cope_train.recipe.model_specs import LocalModel
from cope_train.records import Completion, Message, Outcome, Request

log = logging.getLogger(__name__)


class LocalBackend:
    """A transformers model with at most one active adapter at a time.

    Tokenizer and weights are loaded when they are first needed: a run that finds everything in its store loads
    no weights at all.
    """

    def __init__(self, name: str, spec: LocalModel, adapters: Mapping[str, Path] | None = None) -> None:
        """`adapters` maps a role's adapter name (planner, executor) to its folder.

        Raises UserError when `spec.path` is no model, or an adapter was trained on another base.
        """
        self.name = name
        self._spec = spec
        self._folder = resolve(spec.path, spec.revision)
        self._fingerprint = weights_fingerprint(self._folder)
        self._adapters = {role: Path(folder) for role, folder in (adapters or {}).items()}
        for folder in self._adapters.values():
            check_base(folder, self._fingerprint, spec.path)
        self._adapter_prints = {role: weights_fingerprint(folder) for role, folder in self._adapters.items()}
        self._budget = spec.batch_tokens
        self._render = lru_cache(maxsize=100_000)(self._render_prompt)

    def identity(self, request: Request) -> dict[str, Any]:
        """Weights, adapter, number format and rendered prompt."""
        if request.adapter and request.adapter not in self._adapters:
            raise UserError(f"model {self.name}: no {request.adapter} adapter is trained or given")
        return {
            "weights": self._fingerprint,
            "revision": self._spec.revision,
            "adapter": self._adapter_prints.get(request.adapter),
            "dtype": self._spec.dtype,
            "prompt": self._render(request.messages),
        }

    def generate(
        self, requests: Iterable[Request], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Yield outcomes batch by batch: requests of one kind, similar lengths together, under a token budget."""
        requests = list(requests)
        kinds: dict[tuple, list[int]] = {}
        for position, request in enumerate(requests):
            kinds.setdefault((request.adapter or "", request.sampling), []).append(position)
        for (adapter, _), positions in kinds.items():
            lengths = {i: len(self._encode(requests[i])) for i in positions}
            queue = sorted(positions, key=lambda i: (-lengths[i], i))
            with self._active(adapter):
                while queue:
                    if not go_on():
                        return
                    batch, queue = self._cut(queue, requests, lengths)
                    answered = self._answer([requests[i] for i in batch])
                    if answered is None:
                        queue = batch + queue
                    else:
                        yield from zip(batch, answered, strict=True)

    def _cut(
        self, queue: list[int], requests: Sequence[Request], lengths: Mapping[int, int]
    ) -> tuple[list[int], list[int]]:
        # The queue is sorted by falling length, so its head decides how wide the batch is.
        width = lengths[queue[0]] + requests[queue[0]].sampling.max_tokens
        rows, taken = 0, 0
        for position in queue:
            rows += len(requests[position].indices)
            if taken and rows * width > self._budget:
                break
            taken += 1
        return queue[:taken], queue[taken:]

    def _answer(self, requests: Sequence[Request]) -> list[tuple[Outcome, ...]] | None:
        """Outcomes of one batch; None when memory ran out and the budget was halved.

        Raises NotRunnableHere when memory does not even hold one sample.
        """
        import torch

        try:
            return self._decode(requests)
        except torch.OutOfMemoryError:
            pass  # what was allocated is only let go once the error is
        torch.cuda.empty_cache()
        rows = sum(len(request.indices) for request in requests)
        if rows == 1:
            raise NotRunnableHere(
                f"model {self.name}: out of memory with one sample; lower sampling.*.max_tokens or use a smaller dtype"
            )
        if len(requests) > 1:
            self._budget //= 2
            log.warning("%s: out of memory at %d rows; batch_tokens is now %d", self.name, rows, self._budget)
            return None
        log.warning("%s: out of memory with one request of %d samples; it is split in two", self.name, rows)
        (request,) = requests
        halves = request.indices[: rows // 2], request.indices[rows // 2 :]
        first, second = (self._answer([replace(request, indices=half)])[0] for half in halves)
        return [first + second]

    def _decode(self, requests: Sequence[Request]) -> list[tuple[Outcome, ...]]:
        import torch

        from cope_train.models.cache import new_cache
        from cope_train.models.sampler import KeyedSampler

        start = time.perf_counter()
        sampling = requests[0].sampling
        owners = [i for i, request in enumerate(requests) for _ in request.indices]
        keys = [
            completion_key(self.identity(request), request, index) for request in requests for index in request.indices
        ]
        batch = self.tokenizer.pad({"input_ids": [self._encode(request) for request in requests]}, return_tensors="pt")
        prompt, mask = batch["input_ids"].to(self._model.device), batch["attention_mask"].to(self._model.device)
        rows = torch.tensor(owners, device=prompt.device)
        with torch.inference_mode():
            cache = new_cache(self._model.config)
            if len(owners) > len(requests):
                self._prefill(cache, prompt, mask, rows)
            sampler = KeyedSampler(keys, sampling, prompt[rows], mask[rows])
            output = self._model.generate(
                input_ids=prompt[rows],
                attention_mask=mask[rows],
                past_key_values=cache,
                logits_processor=[sampler],
                max_new_tokens=sampling.max_tokens,
                stop_strings=list(sampling.stop) or None,
                tokenizer=self.tokenizer if sampling.stop else None,
            )
        seconds = (time.perf_counter() - start) / len(owners)
        return self._collect(requests, output[:, prompt.shape[1] :].cpu(), mask.sum(1).tolist(), sampler, seconds)

    def _prefill(self, cache: Any, prompt: Any, mask: Any, rows: Any) -> None:
        """Fill the cache with each prompt less its last token, computed once and repeated for its samples."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self._model(
            input_ids=prompt[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_select_indices(rows)

    def _collect(
        self, requests: Sequence[Request], tokens: Any, prompts: Sequence[int], sampler: Any, seconds: float
    ) -> list[tuple[Outcome, ...]]:
        logprobs, margins = sampler.logprobs, sampler.margins
        outcomes, row = [], 0
        for request, prompt in zip(requests, prompts, strict=True):
            samples = []
            for _ in request.indices:
                ids = tokens[row].tolist()
                length = next((i + 1 for i, token in enumerate(ids) if token in self._ends), len(ids))
                text, cut = self._text(ids[:length], request.sampling.stop)
                if cut:  # what follows is padding, as long as the batch
                    length = self._shortest(ids[:length], request.sampling.stop)
                ended = cut or (length > 0 and ids[length - 1] in self._ends)
                samples.append(
                    Completion(
                        text=text,
                        finish="stop" if ended else "length",
                        prompt_tokens=prompt,
                        completion_tokens=length,
                        logprob=float(logprobs[row, :length].sum()),
                        margin=self._margin(ids[:length], text, request.answer_prefix, margins[row]),
                        seconds=seconds,
                    )
                )
                row += 1
            outcomes.append(tuple(samples))
        return outcomes

    def _text(self, ids: list[int], stops: Sequence[str]) -> tuple[str, bool]:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        found = [text.index(stop) for stop in stops if stop in text]
        return (text[: min(found)], True) if found else (text, False)

    def _margin(self, ids: list[int], text: str, prefix: str | None, margins: Any) -> float | None:
        """Top-2 margin at the first token after the answer's prefix; None when the text has no answer."""
        if not prefix or prefix not in text:
            return None
        first = self._shortest(ids, (prefix,))
        return float(margins[first]) if first < len(ids) else None

    def _shortest(self, ids: list[int], words: Sequence[str]) -> int:
        """The least number of tokens whose text holds one of `words`, which the text of all has."""

        def holds(length: int) -> bool:
            text = self.tokenizer.decode(ids[:length], skip_special_tokens=True)
            return any(word in text for word in words)

        return bisect_left(range(len(ids)), True, key=holds)

    def _render_prompt(self, messages: tuple[Message, ...]) -> str:
        return render(self.tokenizer, messages, self._spec.chat_template_kwargs)

    def _encode(self, request: Request) -> list[int]:
        # The template has written every special token itself.
        return self.tokenizer(self._render(request.messages), add_special_tokens=False)["input_ids"]

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, padding on the left."""
        return load_tokenizer(self._folder)

    @cached_property
    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends if isinstance(ends, list) else [ends])

    @cached_property
    def _model(self) -> Any:
        from transformers import GenerationConfig

        model = load_model(self._folder, self._spec)
        ends = model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        for role, folder in self._adapters.items():
            if role == next(iter(self._adapters)):
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, folder, adapter_name=role)
            else:
                model.load_adapter(folder, adapter_name=role)
        base = model.get_base_model() if self._adapters else model
        # The study's sampling is sent whole; nothing of the model's own defaults may come through.
        base.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=pad)
        return model.eval()

    def _active(self, adapter: str) -> Any:
        if not adapter:
            return self._model.disable_adapter() if self._adapters else nullcontext()
        self._model.set_adapter(adapter)
        return nullcontext()
