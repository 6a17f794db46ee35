"""InternLM2 reward models, written from the published state-dict layout."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    SequenceClassifierOutputWithPast,
)


class InternLM2Config(PretrainedConfig):
    model_type = "internlm2"


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def rotate(x, base):
    half = x.shape[-1] // 2
    inverse = base ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], dtype=torch.float32)[:, None] * inverse
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.kv, self.size = config.num_key_value_heads, config.hidden_size
        self.dim, self.base = config.hidden_size // config.num_attention_heads, config.rope_theta
        self.groups = config.num_attention_heads // self.kv
        self.wqkv = nn.Linear(self.size, (self.groups + 2) * self.kv * self.dim, bias=False)
        self.wo = nn.Linear(self.size, self.size, bias=False)

    def forward(self, x, bias):
        batch, seq, _ = x.shape
        fused = self.wqkv(x).view(batch, seq, self.kv, self.groups + 2, self.dim)
        q = fused[..., : self.groups, :].reshape(batch, seq, -1, self.dim).transpose(1, 2)
        k, v = fused[..., -2, :].transpose(1, 2), fused[..., -1, :].transpose(1, 2)
        q, k = rotate(q, self.base), rotate(k, self.base)
        k, v = k.repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        weights = (q @ k.transpose(-1, -2) / self.dim**0.5 + bias).softmax(-1)
        return self.wo((weights @ v).transpose(1, 2).reshape(batch, seq, self.size))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention, self.feed_forward = Attention(config), MLP(config)
        self.attention_norm, self.ffn_norm = Norm(config.hidden_size), Norm(config.hidden_size)

    def forward(self, x, bias):
        x = x + self.attention(self.attention_norm(x), bias)
        return x + self.feed_forward(self.ffn_norm(x))


class InternLM2PreTrainedModel(PreTrainedModel):
    config_class = InternLM2Config
    base_model_prefix = "model"


class InternLM2Model(InternLM2PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.tok_embeddings

    def forward(self, input_ids, attention_mask=None, **_):
        x = self.tok_embeddings(input_ids)
        seq = input_ids.shape[1]
        seen = torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
        if attention_mask is not None:
            seen = seen & attention_mask[:, None, None, :].bool()
        bias = torch.where(seen, 0.0, -1e9)
        for layer in self.layers:
            x = layer(x, bias)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x))


class InternLM2ForRewardModel(InternLM2PreTrainedModel):
    """Its ``logits`` are those of the last token, as the published class's."""

    def __init__(self, config):
        super().__init__(config)
        self.model = InternLM2Model(config)
        self.v_head = nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.tok_embeddings

    def forward(self, input_ids, attention_mask=None, **_):
        rewards = self.v_head(self.model(input_ids, attention_mask).last_hidden_state)
        ends = attention_mask.cumsum(dim=1).argmax(dim=1).view(-1, 1)
        logits = rewards.squeeze(-1).gather(1, ends)
        return SequenceClassifierOutputWithPast(logits=logits)
