"""Models that run here, on transformers and PEFT: one base, and an adapter for each role."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cope_train.errors import NotRunnableHere, UserError
from cope_train.models.adapters import check_base
from cope_train.models.folders import resolve
from cope_train.models.grouping import Row
from cope_train.models.identity import completion_key, weights_fingerprint
from cope_train.models.loading import load_model, load_tokenizer, render
from cope_train.recipe.model_specs import LocalModel
from cope_train.records import Completion, Message, Outcome, Request, Sampling

if TYPE_CHECKING:
    from cope_train.models.wave import Said

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
        """Yield the outcomes of each request once its last sample has ended.

        Requests of one adapter and one sampling are decoded together. Raises NotRunnableHere when memory does not even
        hold one sample.
        """
        requests = list(requests)
        kinds: dict[tuple, list[int]] = {}
        for position, request in enumerate(requests):
            kinds.setdefault((request.adapter or "", request.sampling), []).append(position)
        for (adapter, sampling), positions in kinds.items():
            rows = [row for position in positions for row in self._rows(position, requests[position])]
            ended: dict[int, dict[int, Completion]] = {position: {} for position in positions}
            with self._active(adapter):
                for said in self._decode(rows, sampling, go_on):
                    position, index = said.row.mark
                    request = requests[position]
                    ended[position][index] = self._completion(request, said)
                    if len(ended[position]) == len(request.indices):
                        samples = ended.pop(position)
                        yield position, tuple(samples[index] for index in request.indices)

    def _rows(self, position: int, request: Request) -> Iterator[Row]:
        prompt, identity = tuple(self._encode(request)), self.identity(request)
        for index in request.indices:
            yield Row((position, index), request.problem_id, completion_key(identity, request, index), prompt)

    def _decode(self, rows: Sequence[Row], sampling: Sampling, go_on: Callable[[], bool]) -> Iterator[Said]:
        from cope_train.models.decode import OutOfRoom

        try:
            yield from self._decoder.run(rows, sampling, go_on)
        except OutOfRoom:
            raise NotRunnableHere(
                f"model {self.name}: out of memory with one sample; lower sampling.*.max_tokens or use a smaller dtype"
            ) from None

    def _completion(self, request: Request, said: Said) -> Completion:
        ids = said.tokens
        text, cut = self._text(ids, request.sampling.stop)
        if cut:  # generate goes on until the longest row of its batch ends
            ids = ids[: self._shortest(ids, request.sampling.stop)]
        return Completion(
            text=text,
            finish="stop" if cut or (ids and ids[-1] in self._ends) else "length",
            prompt_tokens=len(said.row.prompt),
            completion_tokens=len(ids),
            logprob=sum(said.logprobs[: len(ids)]),
            margin=self._margin(ids, text, request.answer_prefix, said.margins),
            seconds=said.seconds,
        )

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
    def _decoder(self) -> Any:
        from cope_train.models.decode import Decoder, suits
        from cope_train.models.plain import PlainDecoder

        kind = Decoder if self._spec.attention is None and suits(self._model) else PlainDecoder
        log.info("%s: decoded by %s", self.name, kind.__name__)
        return kind(self._model, self.tokenizer, self._ends, self._spec.batch_tokens)

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
