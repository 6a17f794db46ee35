"""Which kind of model a folder holds, and which class of transformers stands below its head."""

from __future__ import annotations

from poolc.compiler.architecture import architecture_name
from poolc.compiler.choices import Choices
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.embedding import is_causal
from poolc.errors import UnsupportedModel
from poolc.spec import Convert, Kind, Trunk

# vLLM's table of architecture suffixes (reference: its page of pooling models, "Model Conversion").
_SUFFIXES = (
    ("ForSequenceClassification", Convert.CLASSIFY),
    ("ClassificationModel", Convert.CLASSIFY),
    ("ForRewardModeling", Convert.REWARD),
    ("RewardModel", Convert.REWARD),
)
_TOKEN_LEVEL = ("ForTokenClassification", "ForQuestionAnswering")
_KINDS = {
    Convert.EMBED: (Kind.EMBEDDING, Trunk.BASE),
    Convert.CLASSIFY: (Kind.CLASSIFIER, Trunk.SEQUENCE_CLASSIFIER),
    Convert.REWARD: (Kind.REWARD, Trunk.BASE),
}


def choose_kind(context: Context, choices: Choices) -> tuple[Kind, Trunk]:
    """Choose ``kind`` and ``trunk``. Raises UnsupportedModel."""
    convert = _convert(context, choices)
    kind, trunk = _KINDS[convert]
    if kind is Kind.CLASSIFIER and _reads_lm_head(context):
        trunk = Trunk.CAUSAL_LM
    origin = choices.origins["tasks"]
    choices.set("kind", kind, origin)
    choices.values["trunk"] = trunk
    return kind, trunk


def _convert(context: Context, choices: Choices) -> Convert:
    """Choose embed, classify or reward."""
    name, asked = architecture_name(context.config), context.options.convert
    kind, origin = _kind_of_files(context, name)
    if asked not in (Convert.AUTO, Convert.NONE):
        if asked is Convert.CLASSIFY and kind is not Convert.CLASSIFY:
            raise UnsupportedModel(
                f"{name} has no classification head in its weights: --convert classify needs a "
                "*ForSequenceClassification model"
            )
        if asked is Convert.REWARD and kind is Convert.CLASSIFY and context.config.num_labels != 1:
            raise UnsupportedModel(
                f"{name} has {context.config.num_labels} labels; a reward model has one"
            )
        # A sequence-classification reward model stays one: its head is the reward.
        keeps_head = asked is Convert.REWARD and kind is Convert.CLASSIFY
        kind, origin = (kind if keeps_head else asked), f"--convert {asked}"
    native = (context.st and context.st.pooling) or kind is Convert.CLASSIFY
    if asked is Convert.NONE and not native and is_causal(context.config):
        raise UnsupportedModel(
            f"{name} is no pooling model by itself (--convert none): --convert embed makes it one"
        )
    if kind is Convert.NONE:
        raise UnsupportedModel(
            f"{name} labels tokens, which this poolc does not compile; "
            "--convert embed makes an embedding model of it"
        )
    choices.set("tasks", (), origin)
    return kind


def _kind_of_files(context: Context, name: str) -> tuple[Convert, str]:
    st = context.st
    if st and st.pooling:
        return Convert.EMBED, "modules.json: a Pooling module"
    if st and st.model_type == "CrossEncoder":
        return Convert.CLASSIFY, "config_sentence_transformers.json: model_type CrossEncoder"
    if _reads_lm_head(context):
        found = context.logit_score
        return Convert.CLASSIFY, found.file if found else "config.json: classifier_from_token"
    for suffix, kind in _SUFFIXES:
        if name.endswith(suffix):
            return kind, f"config.json: architectures {name}"
    if name.endswith(_TOKEN_LEVEL):
        return Convert.NONE, f"config.json: architectures {name}"
    return Convert.EMBED, f"config.json: architectures {name}"


def _reads_lm_head(context: Context) -> bool:
    by_config = getattr(context.config, "classifier_from_token", None) is not None
    return by_config or context.logit_score is not None
