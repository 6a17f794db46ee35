"""The classes of Jina-BERT that transformers' Auto classes build. For inference only: no losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import BertOnlyMLMHead, BertPooler

from poolc.compiler.models.jina_bert.config import JinaBertConfig
from poolc.compiler.models.jina_bert.layers import (
    JinaBertEmbeddings,
    JinaBertEncoder,
    attention_bias,
)


class JinaBertPreTrainedModel(PreTrainedModel):
    """Names and abilities that the classes share."""

    config_class = JinaBertConfig
    base_model_prefix = "bert"
    _supports_sdpa = True


class JinaBertModel(JinaBertPreTrainedModel):
    """The encoder; with BERT's pooler, which classifiers read."""

    def __init__(self, config: JinaBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = JinaBertEmbeddings(config)
        self.encoder = JinaBertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of words."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of words."""
        self.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        hidden = self.embeddings(input_ids, types)
        bias = attention_bias(mask, self.config.num_attention_heads, hidden.dtype)
        states = self.encoder(hidden, bias)
        return BaseModelOutputWithPooling(
            last_hidden_state=states[-1],
            pooler_output=self.pooler(states[-1]) if self.pooler is not None else None,
            hidden_states=states if output_hidden_states else None,
        )


class JinaBertForMaskedLM(JinaBertPreTrainedModel):
    """With BERT's language model head."""

    _tied_weights_keys = {  # noqa: RUF012 (as transformers reads it)
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head's last layer, which shares the table of words."""
        decoder: nn.Linear = self.cls.predictions.decoder
        return decoder

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> MaskedLMOutput:
        outputs = self.bert(input_ids, attention_mask, token_type_ids, **options)
        logits = self.cls(outputs.last_hidden_state)
        return MaskedLMOutput(logits=logits, hidden_states=outputs.hidden_states)


class JinaBertForSequenceClassification(JinaBertPreTrainedModel):
    """With a classifier over the pooler, as the rerankers have it."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput:
        outputs = self.bert(input_ids, attention_mask, token_type_ids, **options)
        logits = self.classifier(outputs.pooler_output)
        return SequenceClassifierOutput(logits=logits, hidden_states=outputs.hidden_states)


class JinaBertForTokenClassification(JinaBertPreTrainedModel):
    """With a classifier over every token."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> TokenClassifierOutput:
        outputs = self.bert(input_ids, attention_mask, token_type_ids, **options)
        logits = self.classifier(outputs.last_hidden_state)
        return TokenClassifierOutput(logits=logits, hidden_states=outputs.hidden_states)


CLASSES: Mapping[str, type[JinaBertPreTrainedModel]] = {
    "AutoModel": JinaBertModel,
    "AutoModelForMaskedLM": JinaBertForMaskedLM,
    "AutoModelForSequenceClassification": JinaBertForSequenceClassification,
    "AutoModelForTokenClassification": JinaBertForTokenClassification,
}
