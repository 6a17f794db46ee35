"""Qwen2.5-Math-RM and -PRM, written from the published state-dict layout."""

import torch
from torch import nn
from transformers import Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast, TokenClassifierOutput


class Scored(Qwen2PreTrainedModel):
    columns = 1

    def __init__(self, config):
        super().__init__(config)
        self.model = Qwen2Model(config)
        size = config.hidden_size
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, self.columns))
        self.post_init()

    def rewards(self, input_ids, attention_mask):
        outputs = self.model(input_ids, attention_mask=attention_mask)
        return self.score(outputs.last_hidden_state)


class Qwen2ForRewardModel(Scored):
    def forward(self, input_ids, attention_mask=None, **_):
        last = attention_mask.sum(1) - 1
        logits = self.rewards(input_ids, attention_mask)
        return SequenceClassifierOutputWithPast(logits=logits[torch.arange(len(last)), last])


class Qwen2ForProcessRewardModel(Scored):
    columns = 2

    def forward(self, input_ids, attention_mask=None, **_):
        return TokenClassifierOutput(logits=self.rewards(input_ids, attention_mask))
