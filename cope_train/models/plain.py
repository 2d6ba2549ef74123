"""Decoding by transformers' own `generate`, for models whose attention cannot be shared: padded batches, one by one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from cope_train.models.cache import new_cache
from cope_train.models.decode import OutOfRoom
from cope_train.models.grouping import Row
from cope_train.models.sampler import KeyedSampler
from cope_train.models.wave import Said
from cope_train.records import Sampling

log = logging.getLogger(__name__)


class PlainDecoder:
    """As `Decoder`, less what that shares: rows leave when their whole batch has ended."""

    def __init__(self, model: Any, tokenizer: Any, ends: set[int], budget: int) -> None:
        self.budget = budget
        self._model = model
        self._tokenizer = tokenizer
        self._ends = ends

    def run(self, rows: Sequence[Row], sampling: Sampling, go_on: Callable[[], bool]) -> Iterator[Said]:
        """Yield rows batch by batch, those of similar length together. Raises OutOfRoom when one row is too much."""
        waiting = sorted(rows, key=lambda row: -len(row.prompt))
        while waiting and go_on():
            count = max(1, self.budget // (len(waiting[0].prompt) + sampling.max_tokens))
            batch = waiting[:count]
            try:
                said = self._generate(batch, sampling)
            except torch.OutOfMemoryError:
                said = None  # what was allocated is only let go once the error is
            if said is None:
                self._halve(len(batch))
                continue
            waiting = waiting[count:]
            yield from said

    def _halve(self, rows: int) -> None:
        torch.cuda.empty_cache()
        if rows == 1:
            raise OutOfRoom
        self.budget //= 2
        log.warning("out of memory with %d samples at once; room for %d tokens from now on", rows, self.budget)

    def _generate(self, rows: Sequence[Row], sampling: Sampling) -> list[Said]:
        start = time.perf_counter()
        places: dict[tuple[int, ...], int] = {}
        owners = [places.setdefault(row.prompt, len(places)) for row in rows]
        batch = self._tokenizer.pad({"input_ids": [list(prompt) for prompt in places]}, return_tensors="pt")
        prompt, mask = batch["input_ids"].to(self._model.device), batch["attention_mask"].to(self._model.device)
        at = torch.tensor(owners, device=prompt.device)
        with torch.inference_mode():
            cache = new_cache(self._model.config)
            if len(places) < len(rows) and prompt.shape[1] > 1:
                self._prefill(cache, prompt, mask, at)
            sampler = KeyedSampler([row.key for row in rows], sampling, prompt[at], mask[at])
            output = self._model.generate(
                input_ids=prompt[at],
                attention_mask=mask[at],
                past_key_values=cache,
                logits_processor=[sampler],
                max_new_tokens=sampling.max_tokens,
                stop_strings=list(sampling.stop) or None,
                tokenizer=self._tokenizer if sampling.stop else None,
            )
        seconds = (time.perf_counter() - start) / len(rows)
        tokens, facts = output[:, prompt.shape[1] :].tolist(), (sampler.logprobs.tolist(), sampler.margins.tolist())
        return [self._said(*parts, seconds) for parts in zip(rows, tokens, *facts, strict=True)]

    def _prefill(self, cache: Any, prompt: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor) -> None:
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

    def _said(self, row: Row, tokens: list[int], logprobs: list[float], margins: list[float], seconds: float) -> Said:
        length = next((i + 1 for i, token in enumerate(tokens) if token in self._ends), len(tokens))
        return Said(row, tokens[:length], logprobs[:length], margins[:length], seconds)
