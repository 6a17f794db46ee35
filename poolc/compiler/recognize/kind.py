"""Which kind of model a folder holds, and which class of transformers stands below its head."""

from __future__ import annotations

from poolc.compiler.architecture import architecture_name
from poolc.compiler.choices import Choices
from poolc.compiler.pooler_fields import pooler_error
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.embedding import is_causal
from poolc.compiler.recognize.retrieval import retrieval_kind
from poolc.compiler.st_files import SentenceTransformer
from poolc.compiler.st_files.chain import MODEL2VEC
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.spec import Convert, Kind, Trunk

# vLLM's table of architecture suffixes (reference: its page of pooling models, "Model Conversion").
_SUFFIXES = (
    ("ForSequenceClassification", Convert.CLASSIFY),
    ("ForTokenClassification", Convert.CLASSIFY),
    ("ClassificationModel", Convert.CLASSIFY),
    ("ForRewardModeling", Convert.REWARD),
    ("RewardModel", Convert.REWARD),
)
_LABELS_TOKENS = "ForTokenClassification"
_REWARDS_TOKENS = ("RewardModel", "ForRewardModeling")
_SPANS_OF_CONTEXT = "ForQuestionAnswering"
# Those that it runs to generate text, unless told otherwise.
_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
_KINDS = {
    Convert.EMBED: (Kind.EMBEDDING, Trunk.BASE),
    Convert.CLASSIFY: (Kind.CLASSIFIER, Trunk.SEQUENCE_CLASSIFIER),
    Convert.REWARD: (Kind.REWARD, Trunk.BASE),
}


def choose_kind(context: Context, choices: Choices) -> tuple[Kind, Trunk]:
    """Choose ``kind`` and ``trunk``. Raises UnsupportedModel."""
    retrieval = retrieval_kind(context)
    if retrieval is not None:
        kind, trunk, origin = retrieval
        choices.set("tasks", (), origin)
        choices.set("kind", kind, origin)
        choices.set("trunk", trunk, origin)
        return kind, trunk
    if context.pooler.token_pooling == "step":
        kind, trunk = _step(context, choices)
    else:
        convert = _convert(context, choices)
        kind, trunk = _token_level(convert, architecture_name(context.config)) or _KINDS[convert]
    if kind is Kind.CLASSIFIER and _reads_lm_head(context):
        trunk = Trunk.CAUSAL_LM
    origin = choices.origins["tasks"]
    choices.set("kind", kind, origin)
    choices.set("trunk", trunk, origin)
    return kind, trunk


def _token_level(convert: Convert, name: str) -> tuple[Kind, Trunk] | None:
    """Return what becomes of a class that labels tokens; None for any other."""
    if name.endswith(_LABELS_TOKENS) and convert in (Convert.CLASSIFY, Convert.REWARD):
        kind = Kind.TOKEN_CLASSIFIER if convert is Convert.CLASSIFY else Kind.REWARD
        return kind, Trunk.TOKEN_CLASSIFIER
    return None


def _step(context: Context, choices: Choices) -> tuple[Kind, Trunk]:
    """Process rewards: token logits at a tag, of whatever class has token logits."""
    name, asked = architecture_name(context.config), context.options.convert
    if asked not in (Convert.AUTO, Convert.REWARD):
        raise InvalidOption(
            f"--convert {asked} and --pooler-config pooling_type STEP contradict each other: a "
            "model with steps is a reward model",
            param="convert",
        )
    choices.set("tasks", (), f"{context.pooler.origin('token_pooling')} STEP")
    if name.endswith(_GENERATES):
        return Kind.REWARD, Trunk.CAUSAL_LM
    if name.endswith(_LABELS_TOKENS):
        return Kind.REWARD, Trunk.TOKEN_CLASSIFIER
    if name.endswith(_REWARDS_TOKENS):
        return Kind.REWARD, Trunk.BASE
    raise UnsupportedModel(
        f"{name} has no logits of tokens, which --pooler-config pooling_type STEP selects from: it "
        f"needs a {', '.join(f'*{s}' for s in (*_REWARDS_TOKENS, _LABELS_TOKENS, *_GENERATES))}"
    )


def _convert(context: Context, choices: Choices) -> Convert:
    """Choose embed, classify or reward."""
    name, asked = architecture_name(context.config), context.options.convert
    _check_pools(context, name)
    kind, origin = _kind_of_files(context, name)
    if asked not in (Convert.AUTO, Convert.NONE):
        if asked is Convert.CLASSIFY and kind is not Convert.CLASSIFY:
            raise UnsupportedModel(
                f"{name} has no classification head in its weights: --convert classify needs a "
                "*ForSequenceClassification model"
            )
        labels_tokens = name.endswith(_LABELS_TOKENS)
        sequence = kind is Convert.CLASSIFY and not labels_tokens
        if asked is Convert.REWARD and sequence and context.config.num_labels != 1:
            raise UnsupportedModel(
                f"{name} has {context.config.num_labels} labels; a reward model has one"
            )
        # A sequence-classification reward model stays one: its head is the reward.
        keeps_head = asked is Convert.REWARD and sequence
        kind, origin = (kind if keeps_head else asked), f"--convert {asked}"
    native = (context.st and context.st.pooling) or kind in (Convert.CLASSIFY, Convert.REWARD)
    if asked is Convert.NONE and not native and is_causal(context.config):
        raise UnsupportedModel(
            f"{name} is no pooling model by itself (--convert none): --convert embed makes it one"
        )
    if kind is Convert.NONE:
        raise UnsupportedModel(
            f"{name} finds answers in a text, which is no pooling task; "
            "--convert embed makes an embedding model of it"
        )
    choices.set("tasks", (), origin)
    return kind


def _check_pools(context: Context, name: str) -> None:
    """Refuse a class that only generates text, by vLLM's rules for ``--runner auto``."""
    options, st = context.options, context.st
    told = options.runner == "pooling" or options.convert is not Convert.AUTO
    # Modules of the library's other models (SparseEncoder, CrossEncoder, ...) say what they are.
    pools = st is not None and (st.pooling or st.model_type != "SentenceTransformer")
    # Half of a reranker's keys is another mistake, which ``recognize/template.py`` names.
    half = getattr(context.config, "is_original_qwen3_reranker", False)
    pools = pools or half or _reads_lm_head(context)
    steps = sorted({"step_tag_id", "returned_token_ids"} & context.pooler.given)
    if name.endswith(_GENERATES) and steps and not told and not pools:
        raise pooler_error(
            f"{steps[0]} selects rewards, which {name} has where pooling_type is STEP: say "
            '"pooling_type": "STEP"'
        )
    if name.endswith(_GENERATES) and not told and not pools:
        file = "modules.json" if st else "there is no modules.json"
        raise UnsupportedModel(
            f"config.json: architectures is {name}, a class that generates text, and {file} "
            f"{'has no Pooling module' if st else 'with a Pooling module'}: to make an embedding "
            "model of it all the same, pass --convert embed or --runner pooling"
        )


def _kind_of_files(context: Context, name: str) -> tuple[Convert, str]:
    st = context.st
    if st and st.pooling:
        return Convert.EMBED, _pooling_origin(st)
    if st and st.model_type == "CrossEncoder":
        return Convert.CLASSIFY, "config_sentence_transformers.json: model_type CrossEncoder"
    if _reads_lm_head(context):
        found = context.logit_score
        return Convert.CLASSIFY, found.file if found else "config.json: classifier_from_token"
    for suffix, kind in _SUFFIXES:
        if name.endswith(suffix):
            return kind, f"config.json: architectures {name}"
    if name.endswith(_SPANS_OF_CONTEXT):
        return Convert.NONE, f"config.json: architectures {name}"
    return Convert.EMBED, f"config.json: architectures {name}"


def _reads_lm_head(context: Context) -> bool:
    by_config = getattr(context.config, "classifier_from_token", None) is not None
    return by_config or context.logit_score is not None


def _pooling_origin(st: SentenceTransformer) -> str:
    if st.reader == MODEL2VEC:
        return f"{st.file}: model2vec"
    return f"{st.file}: a {'StaticEmbedding' if st.is_static else 'Pooling'} module"
