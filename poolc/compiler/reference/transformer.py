"""The reference of models whose head is transformers' own, or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from poolc.compiler.architecture import load_weights
from poolc.compiler.heads import activation_module
from poolc.compiler.parity_texts import parity_pairs, parity_texts
from poolc.compiler.reference.base import Case, Reference, Subject
from poolc.runtime.request import Item
from poolc.runtime.templates import ScoreTemplate, special_tokens
from poolc.spec import LOGITS, PROBS, TOKEN_EMBEDDINGS, Activation

_INSTRUCTION = "Find the passage that answers the question"


class TransformerReference(Reference):
    """Runs the class that transformers builds."""

    name = "transformers"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.model = load_weights(
            subject.folder / subject.recognized.transformer,
            subject.recognized.arch,
            trust_remote_code=subject.options.trust_remote_code,
            attention="eager",
        )


class HiddenStatesReference(TransformerReference):
    """Hidden states as they are."""

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        return {TOKEN_EMBEDDINGS: self.model(**self.encode(item)).last_hidden_state}


class ClassifierReference(TransformerReference):
    """Logits and their activation, of texts and of pairs; these by transformers' chat templates
    where the model has a score template."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._template = subject.recognized.template
        self._prompt = self.spec.prompts.get(self.spec.default_prompt_name or "", "")

    def encode(self, item: Item) -> dict[str, torch.Tensor]:
        if isinstance(item, tuple):
            return super().encode((self._prompt + item[0], item[1]))
        return super().encode(self._prompt + str(item))

    def cases(self) -> list[Case]:
        task, texts = self.spec.tasks[0], parity_texts(self.max_length)
        pairs = parity_pairs(self.max_length)
        if self._template is None:
            # Behind the model's own prompt, if it has one.
            return [Case(task, texts + pairs, replace(self.params(), prompt=None))]
        return [Case(task, texts, self.params()), *self._templated(pairs)]

    def _templated(self, pairs: list[Item]) -> Iterator[Case]:
        """Yield pairs that fit: no library shortens texts inside a prompt.

        Without an instruction and with one, as far as the template allows.
        """
        tokens = special_tokens(self.tokenizer.special_tokens_map)
        template = ScoreTemplate(self._template or "", tokens)
        for instruction in (None, _INSTRUCTION):
            if template.needs_instruction and instruction is None and not self.spec.instruction:
                continue
            if instruction is not None and not template.takes_instruction:
                continue
            params = replace(self.params(), instruction=instruction)
            case = Case(self.spec.tasks[0], pairs, params)
            fitting = [
                p for p in pairs if self._encoded(case, p)["input_ids"].shape[1] <= self.max_length
            ]
            yield replace(case, items=fitting or [("a", "a")])

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        if self._template is None or not isinstance(item, tuple):
            return super().token_ids(case, item)
        return self._encoded(case, item)["input_ids"][0].tolist(), None

    def _encoded(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        if self._template is None or not isinstance(item, tuple):
            return self.encode(item)
        instruction = case.params.instruction or self.spec.instruction
        messages = [{"role": "query", "content": item[0]}, {"role": "document", "content": item[1]}]
        variables: dict[str, Any] = {"query": item[0], "document": item[1]}
        if instruction is not None:
            messages.insert(0, {"role": "system", "content": instruction})
            variables["instruction"] = instruction
        prompt = self.tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, **variables
        )
        special = self.spec.template_special_tokens
        encoded = self.tokenizer(prompt, add_special_tokens=special, return_tensors="pt")
        return {name: encoded[name] for name in self.spec.inputs}

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        output = self.model(**self._encoded(case, item), output_hidden_states=True)
        logits = self._affine(self._rows(output.logits))
        activation = activation_module(self.spec.activation or Activation.IDENTITY)
        return {
            LOGITS: logits,
            PROBS: activation(logits),
            TOKEN_EMBEDDINGS: output.hidden_states[-1],
        }

    def _rows(self, logits: torch.Tensor) -> torch.Tensor:
        """Of a language model, [1, seq, vocab]: the rows of the last token."""
        head = self.spec.lm_head
        if head is None:
            return logits
        rows = logits[:, -1, list(head.token_ids)]
        return rows[:, 1:] - rows[:, :1] if head.difference else rows

    def _affine(self, logits: torch.Tensor) -> torch.Tensor:
        mean, sigma = self.spec.logit_mean, self.spec.logit_sigma
        return (logits - (mean or 0.0)) / (1.0 if sigma is None else sigma)
