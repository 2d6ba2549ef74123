"""Decoding many samples at once: rows that end leave, waiting ones enter, and a shared prompt is read once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache, StopStringCriteria
from transformers.cache_utils import DynamicLayer

from cope_train.models.grouping import Group, Row, group, groups
from cope_train.models.sampler import Sampler
from cope_train.models.shared import ATTENTION, Cohort, SharedCache
from cope_train.models.wave import Said, Wave
from cope_train.records import Sampling

log = logging.getLogger(__name__)
_PREFILL = 8192  # prompt tokens in one pass
_LEAVE = 8  # ended rows go when they are at least one in so many


class OutOfRoom(Exception):
    """Memory does not hold even one sample."""


class Decoder:
    """Decodes with one model; `budget` is the most tokens whose keys and values are held, halved on out-of-memory."""

    def __init__(self, model: Any, tokenizer: Any, ends: set[int], budget: int) -> None:
        self.budget = budget
        self._model = model
        self._tokenizer = tokenizer
        self._ends = torch.tensor(sorted(ends), device=model.device)
        _share(model)

    def run(self, rows: Sequence[Row], sampling: Sampling, go_on: Callable[[], bool]) -> Iterator[Said]:
        """Yield rows as they end. Once `go_on` says no, none enters any more, and those inside are finished.

        Raises OutOfRoom when memory does not hold a single row.
        """
        waiting, inside = deque(groups(rows)), []
        job = _Job(self._model, sampling, self._tokenizer)
        while inside or waiting:
            entering = self._next(waiting, inside, sampling) if waiting else []
            if entering and not go_on():
                waiting, entering = deque(), []
                continue
            try:
                moved = job.enter(entering, inside) if entering else job.step(inside)
            except torch.OutOfMemoryError:
                moved = None  # what was allocated is only let go once the error is, and the cache that knows it
            if moved is None:
                job = _Job(self._model, sampling, self._tokenizer)
                waiting.extendleft(reversed(self._back_out(entering, inside)))
                continue
            for wave in moved:
                yield from self._leave(wave, job)
            inside = [wave for wave in inside if wave.rows]

    def _next(self, waiting: deque[Group], inside: Sequence[Wave], sampling: Sampling) -> list[Group]:
        """The groups to enter now: none until half of the room is free, then as many as it holds."""
        used = sum(wave.reserved for wave in inside)
        found: list[Group] = []
        while waiting and (found or used <= self.budget // 2):
            size = waiting[0].tokens(sampling.max_tokens)
            if (inside or found) and used + size > self.budget:
                break
            used += size
            found.append(waiting.popleft())
        return found

    def _back_out(self, entering: Sequence[Group], inside: list[Wave]) -> list[Group]:
        """Take everything out again and halve the budget: what was said is said again, by the same noise."""
        rows = [row for wave in inside for row in wave.rows] + [row for group in entering for row in group.rows]
        inside.clear()
        torch.cuda.empty_cache()
        if len(rows) == 1:
            raise OutOfRoom
        self.budget //= 2
        log.warning("out of memory with %d samples at once; room for %d tokens from now on", len(rows), self.budget)
        found = groups(rows)
        return found if len(found) > 1 else list(found[0].halves())

    def _leave(self, wave: Wave, job: _Job) -> Iterator[Said]:
        """Yield the rows that their newest token ended; make room once enough have."""
        ended = torch.isin(wave.tokens[:, wave.step - 1], self._ends)
        if job.stops:
            ended |= job.stops(wave.tokens[:, : wave.step], None)
        full = wave.step == job.sampling.max_tokens
        found = [i for i, end in enumerate(ended.tolist()) if (end or full) and not wave.ended[i]]
        if found:
            at = torch.tensor(found, device=ended.device)
            tokens, facts = wave.tokens[at, : wave.step].tolist(), wave.facts[at, : wave.step].cpu()
            for i, ids, fact in zip(found, tokens, facts, strict=True):
                wave.ended[i] = True
                yield Said(wave.rows[i], ids, fact[:, 0].tolist(), fact[:, 1].tolist(), wave.seconds)
            if _LEAVE * sum(wave.ended) >= len(wave.rows):
                wave.keep()


class _Job:
    """The forward passes of one run under one set of sampling parameters."""

    def __init__(self, model: Any, sampling: Sampling, tokenizer: Any) -> None:
        self.sampling = sampling
        self.stops = StopStringCriteria(tokenizer, list(sampling.stop)) if sampling.stop else None
        self._model = model
        self._sampler = Sampler(sampling)
        self._cache = SharedCache()

    def enter(self, found: Sequence[Group], inside: list[Wave]) -> list[Wave]:
        """A new wave of these groups, prompts read and first tokens said."""
        with torch.inference_mode():
            start = time.perf_counter()
            wave = Wave(found, self.sampling, self._model.device)
            self._read(wave.cohort, [group.rows[0].prompt[: group.shared] for group in found])
            self._say([wave], *wave.tails())
            wave.seconds += (time.perf_counter() - start) / len(wave.rows)
        inside.append(wave)
        return [wave]

    def _read(self, cohort: Cohort, prefixes: Sequence[tuple[int, ...]]) -> None:
        """Fill the cache with the groups' prefixes; they are sorted, so that there is little padding."""
        first = 0
        while first < len(prefixes):
            width = max(1, len(prefixes[first]))
            part = prefixes[first : first + max(1, _PREFILL // width)]
            ids = torch.tensor([[*prefix, *[0] * (width - len(prefix))] for prefix in part], device=self._model.device)
            self._cache.prefill(cohort, first)
            self._logits(ids, torch.arange(width, device=ids.device)[None])
            first += len(part)
        self._cache.prefill(None)

    def step(self, inside: list[Wave]) -> list[Wave]:
        """One token more for every row inside."""
        with torch.inference_mode():
            start = time.perf_counter()
            ids, positions = (torch.cat(parts) for parts in zip(*(wave.last() for wave in inside), strict=True))
            self._say(inside, ids, positions)
            share = (time.perf_counter() - start) / len(ids)
        for wave in inside:
            wave.seconds += share
        return inside

    def _say(self, waves: Sequence[Wave], ids: torch.Tensor, positions: torch.Tensor) -> None:
        self._cache.cohorts = [wave.cohort for wave in waves]
        logits = self._logits(ids, positions)
        for wave, part in zip(waves, logits.split([len(wave.rows) for wave in waves]), strict=True):
            wave.cohort.filled += ids.shape[1]
            wave.add(self._sampler.choose(part, wave.said(), wave.noise))

    def _logits(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits of the last tokens, [rows, vocabulary]."""
        options = {"past_key_values": self._cache, "use_cache": True, "logits_to_keep": 1}
        return self._model(input_ids=ids, position_ids=positions.expand_as(ids), **options).logits[:, -1]


def _share(model: Any, attention: str = ATTENTION) -> str:
    """Let a model attend in another way; returns the way before."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config._attn_implementation
    base.set_attn_implementation(attention)
    return before


def suits(model: Any) -> bool:
    """Whether a model can be decoded here: full attention everywhere, one device, and the same logits as by itself.

    A model whose attention is more than a softmax of products (caps, sinks, windows) fails one or the other.
    """
    layers = DynamicCache(config=model.config).layers
    devices = set(getattr(model, "hf_device_map", {"": 0}).values())
    if len(devices) > 1 or any(type(layer) is not DynamicLayer for layer in layers):
        return False
    prompt = tuple(range(5, 12))
    found = [Row(i, 0, "0" * 32, prompt + extra) for i, extra in enumerate(((3,), (4, 3)))]
    with torch.inference_mode():
        theirs = torch.cat([model(torch.tensor([row.prompt], device=model.device)).logits[:, -1] for row in found])
    before = _share(model)
    try:
        wave = Wave([group(found)], Sampling(max_tokens=1), model.device)
        job = _Job(model, Sampling(max_tokens=1), None)
        with torch.inference_mode():
            job._read(wave.cohort, [prompt])
            job._cache.cohorts = [wave.cohort]
            mine = job._logits(*wave.tails())
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        log.info("decoded by generate: its attention cannot be shared (%s)", error)
        return False
    finally:
        _share(model, before)
    scale = 1e-3 if theirs.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((mine - theirs).abs().max() <= scale * theirs.abs().max().clamp(min=1))
