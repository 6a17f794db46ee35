"""The layers of Jina-BERT, under the names that its published tensors have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.bert.modeling_bert import BertSelfOutput

from poolc.compiler.models.jina_bert.config import JinaBertConfig

_ACTIVATIONS = {"geglu": nn.GELU, "reglu": nn.ReLU}


def alibi_slopes(num_heads: int) -> list[float]:
    """Return what each head takes off a score for every token of distance."""
    power = 2 ** math.floor(math.log2(num_heads))
    start = 2.0 ** -(2.0 ** (3 - math.log2(power)))
    slopes = [start ** (i + 1) for i in range(power)]
    return slopes if power == num_heads else slopes + _between(power, num_heads - power)


def _between(power: int, count: int) -> list[float]:
    """Of heads beyond a power of two: every other slope of twice as many."""
    return alibi_slopes(2 * power)[::2][:count]


def attention_bias(mask: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores: ALiBi, in which padding is infinitely far away."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    distances = (positions[:, None] - positions[None, :]).abs().float()
    # Before the heads are there, for theirs is the one large tensor. Slopes are from 2^-8 to 1: the
    # product is finite, and exp of it 0, in fp16 too.
    far = torch.finfo(dtype).max
    distances = torch.where(mask[:, None, None, :] != 0, distances, far)  # (batch, 1, seq, seq)
    slopes = torch.tensor(alibi_slopes(num_heads), dtype=torch.float32, device=mask.device)
    return (-slopes[:, None, None] * distances).to(dtype)  # (batch, heads, seq, seq)


class JinaBertEmbeddings(nn.Module):
    """Words and segments; no positions."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        words = self.word_embeddings(input_ids)
        normed: Tensor = self.LayerNorm(words + self.token_type_embeddings(token_type_ids))
        return normed


class JinaBertSelfAttention(nn.Module):
    """Attention with a bias; ``layer_norm_q`` and ``layer_norm_k`` span all heads."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.config, self.num_heads = config, config.num_attention_heads
        size = config.hidden_size
        if size % self.num_heads:
            raise ValueError(f"hidden_size {size} is no multiple of {self.num_heads} heads")
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        if config.qk_post_norm:
            self.layer_norm_q, self.layer_norm_k = (
                nn.LayerNorm(size, config.layer_norm_eps) for _ in range(2)
            )

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        query, key = self.query(hidden), self.key(hidden)
        if self.config.qk_post_norm:
            query, key = self.layer_norm_q(query), self.layer_norm_k(key)
        query, key, value = map(self._heads, (query, key, self.value(hidden)))
        if self.config._attn_implementation == "eager":
            scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + bias
            context = torch.softmax(scores, dim=-1) @ value
        else:
            context = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return context.transpose(1, 2).flatten(2)  # (batch, seq, hidden)

    def _heads(self, hidden: Tensor) -> Tensor:
        batch, seq, size = hidden.shape
        return hidden.view(batch, seq, self.num_heads, size // self.num_heads).transpose(1, 2)


class JinaBertAttention(nn.Module):
    """Attention, its projection, the residual and their norm."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.self = JinaBertSelfAttention(config)
        self.output = BertSelfOutput(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        attended: Tensor = self.output(self.self(hidden, bias), hidden)
        return attended


class GatedMlp(nn.Module):
    """Of jina-bert-implementation: the first half is the gate; the residual is inside."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.gated_layers = nn.Linear(size, 2 * inner, bias=False)
        self.act = _ACTIVATIONS[config.feed_forward_type]()
        self.wo = nn.Linear(inner, size)
        self.layernorm = nn.LayerNorm(size, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.gated_layers(hidden).chunk(2, dim=-1)
        normed: Tensor = self.layernorm(self.wo(self.act(gate) * up) + hidden)
        return normed


class UpGatedMlp(nn.Module):
    """Of jina-bert-v2-qk-post-norm: the second half is the gate."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.up_gated_layer = nn.Linear(size, 2 * inner, bias=False)
        self.act = _ACTIVATIONS[config.feed_forward_type]()
        self.down_layer = nn.Linear(inner, size)

    def forward(self, hidden: Tensor) -> Tensor:
        up, gate = self.up_gated_layer(hidden).chunk(2, dim=-1)
        down: Tensor = self.down_layer(up * self.act(gate))
        return down


class JinaBertLayer(nn.Module):
    """A layer of jina-bert-implementation."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.attention = JinaBertAttention(config)
        self.mlp = GatedMlp(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        fed: Tensor = self.mlp(self.attention(hidden, bias))
        return fed


class QkPostNormLayer(nn.Module):
    """A layer of jina-bert-v2-qk-post-norm: the residual of attention is added and normed twice."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.attention = JinaBertAttention(config)
        self.mlp = UpGatedMlp(config)
        self.layer_norm_1, self.layer_norm_2 = (
            nn.LayerNorm(config.hidden_size, config.layer_norm_eps) for _ in range(2)
        )

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        attended = self.layer_norm_1(hidden + self.attention(hidden, bias))
        fed: Tensor = self.layer_norm_2(attended + self.mlp(attended))
        return fed


class JinaBertEncoder(nn.Module):
    """The layers; returns what goes into each, and what comes out of the last."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        kind = QkPostNormLayer if config.qk_post_norm else JinaBertLayer
        self.layer = nn.ModuleList(kind(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        states = [hidden]
        for layer in self.layer:
            states.append(layer(states[-1], bias))
        return tuple(states)
