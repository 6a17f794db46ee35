"""The vLLM-shaped facade: the calls of vLLM's page on pooling models, and what it refuses."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc import LLM, PoolerConfig, PoolingParams
from poolc.errors import (
    InvalidDimensions,
    InvalidOption,
    InvalidText,
    TextTooLong,
    UnsupportedTask,
)
from poolc.llm import (
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PoolingRequestOutput,
    ScoringRequestOutput,
)
from poolc.llm.progress import progress_bar
from poolc.runtime.engine import Engine
from poolc.runtime.request import Prepared
from poolc.runtime.work import Work
from tests.models import HIDDEN, MAX_LENGTH

TEXT = "the quick brown fox"


@pytest.fixture(scope="module")
def embed_llm(tiny_embedder: Path) -> LLM:
    return LLM(model=str(tiny_embedder), runner="pooling")


@pytest.fixture(scope="module")
def classify_llm(tiny_classifier: Path) -> LLM:
    return LLM(model=str(tiny_classifier), runner="pooling")


@pytest.fixture(scope="module")
def score_llm(tiny_cross_encoder: Path) -> LLM:
    return LLM(model=str(tiny_cross_encoder), runner="pooling")


# The page's snippets.

ST = "sentence-transformers"


def test_embed_as_on_the_page(embed_llm: LLM, embedder: Engine) -> None:
    (output,) = embed_llm.embed("Hello, my name is")
    embeds = output.outputs.embedding
    assert isinstance(output, EmbeddingRequestOutput)
    assert (len(embeds), output.outputs.hidden_size) == (HIDDEN, HIDDEN)
    assert embeds == embedder.embed("Hello, my name is", prompt="")[0].tolist()
    assert all(type(number) is float for number in embeds)


def test_classify_as_on_the_page(classify_llm: LLM, classifier: Engine) -> None:
    (output,) = classify_llm.classify("Hello, my name is")
    probs = output.outputs.probs
    assert isinstance(output, ClassificationRequestOutput)
    assert (len(probs), output.outputs.num_classes) == (3, 3)
    assert probs == classifier.classify("Hello, my name is").probs[0].tolist()


def test_score_as_on_the_page(score_llm: LLM, cross_encoder: Engine) -> None:
    pair = ("What is the capital of France?", "The capital of Brazil is Brasilia.")
    (output,) = score_llm.score(*pair)
    assert isinstance(output, ScoringRequestOutput)
    assert output.outputs.score == float(cross_encoder.score(*pair)[0])


def test_reward_as_on_the_page(score_llm: LLM, cross_encoder: Engine) -> None:
    (output,) = score_llm.reward("Hello, my name is")
    assert isinstance(output, PoolingRequestOutput)
    assert output.outputs.data.tolist() == list(cross_encoder.reward("Hello, my name is"))


def test_encode_as_on_the_page(embed_llm: LLM) -> None:
    (output,) = embed_llm.encode("Hello, my name is", pooling_task="embed")
    assert isinstance(output.outputs.data, np.ndarray)
    (same,) = embed_llm.embed("Hello, my name is")
    assert output.outputs.data.tolist() == same.outputs.embedding


def test_matryoshka_as_on_the_page(embed_llm: LLM) -> None:
    outputs = embed_llm.embed(
        ["Follow the white rabbit."], pooling_params=PoolingParams(dimensions=16)
    )
    vector = np.array(outputs[0].outputs.embedding)
    assert vector.shape == (16,)
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_page_matryoshka_error(minilm: Path) -> None:
    llm = LLM(model=str(minilm))
    with pytest.raises(InvalidDimensions) as caught:
        llm.embed(TEXT, pooling_params=PoolingParams(dimensions=32))
    assert str(caught.value) == (
        f'Model "{minilm}" does not support matryoshka representation, changing output dimensions '
        "will lead to poor results."
    )
    assert isinstance(caught.value, ValueError)


# Methods and results.


def test_request_ids_count_up(tiny_embedder: Path) -> None:
    llm = LLM(tiny_embedder)
    ids = [output.request_id for output in [*llm.embed([TEXT, "a"]), *llm.embed("b")]]
    assert ids == ["0", "1", "2"]


def test_result_fields(embed_llm: LLM) -> None:
    (output,) = embed_llm.embed(TEXT)
    assert output.finished
    assert output.num_cached_tokens == 0
    assert output.prompt_token_ids == embed_llm.engine.tokenize(TEXT)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda llm: llm.embed(TEXT), "EmbeddingOutput(embedding=["),
        (lambda llm: llm.encode(TEXT), "PoolingOutput(data=[["),
        (lambda llm: llm.score(TEXT, TEXT), "ScoringOutput(score="),
    ],
)
def test_outputs_print_readably(
    embed_llm: LLM, call: Callable[[LLM], list[Any]], shown: str
) -> None:
    text = str(call(embed_llm)[0].outputs)
    assert text.startswith(shown)
    assert len(text) < 1000


def test_classification_output_prints_all_classes(classify_llm: LLM) -> None:
    text = str(classify_llm.classify(TEXT)[0].outputs)
    assert text.startswith("ClassificationOutput(probs=[")
    assert text.endswith("num_classes=3)")


def test_prompt_forms_agree_and_mix(embed_llm: LLM) -> None:
    ids = embed_llm.engine.tokenize(TEXT)
    forms: list[Any] = [TEXT, ids, {"prompt": TEXT}, {"prompt_token_ids": ids}]
    together = [output.outputs.embedding for output in embed_llm.embed(forms)]
    assert together == [together[0]] * 4
    for form in forms:
        (output,) = embed_llm.embed(form)
        assert output.outputs.embedding == pytest.approx(together[0], abs=1e-6)


def test_token_ids_as_an_array(embed_llm: LLM) -> None:
    ids = np.array(embed_llm.engine.tokenize(TEXT))
    (output,) = embed_llm.embed(ids)
    assert output.prompt_token_ids == ids.tolist()


def test_no_prompt_of_the_model_is_applied(embed_llm: LLM) -> None:
    (output,) = embed_llm.embed("bread")
    assert output.prompt_token_ids == embed_llm.engine.tokenize("bread")


@pytest.mark.parametrize(
    ("left", "right", "count"),
    [("a", "b", 1), ("a", ["b", "c"], 2), (["a", "b"], ["c", "d"], 2), ({"prompt": "a"}, "b", 1)],
)
def test_score_shapes(embed_llm: LLM, left: Any, right: Any, count: int) -> None:
    assert len(embed_llm.score(left, right)) == count


def test_score_by_similarity_shows_both_texts(embed_llm: LLM) -> None:
    outputs = embed_llm.score("bread", ["salt", "flour"])
    tokenize, pad = embed_llm.engine.tokenize, embed_llm.engine.spec.pad_token_id
    assert [output.prompt_token_ids for output in outputs] == [
        [*tokenize("bread"), pad, *tokenize(text)] for text in ("salt", "flour")
    ]


def test_score_of_unequal_lists(embed_llm: LLM) -> None:
    with pytest.raises(InvalidText, match="2 and 3 texts"):
        embed_llm.score(["a", "b"], ["c", "d", "e"])


def test_many_prompts_keep_their_order(embed_llm: LLM, embedder: Engine) -> None:
    texts = [f"{number} bridges over the river" for number in range(2500)]
    outputs = embed_llm.embed(texts)
    expected = embedder.embed(texts, prompt="")
    assert np.array_equal([output.outputs.embedding for output in outputs], expected)


@pytest.mark.parametrize("task", [None, "encode", "token_embed"])
def test_encode_tokens(embed_llm: LLM, task: str | None) -> None:
    (output,) = embed_llm.encode(TEXT, pooling_task=task)
    assert output.outputs.data.shape == (len(output.prompt_token_ids), HIDDEN)


def test_encode_classify(classify_llm: LLM) -> None:
    (output,) = classify_llm.encode(TEXT, pooling_task="classify")
    assert output.outputs.data.tolist() == classify_llm.classify(TEXT)[0].outputs.probs


def test_encode_score(score_llm: LLM) -> None:
    (output,) = score_llm.encode(TEXT, pooling_task="score")
    assert output.outputs.data.shape == (1,)


def test_encode_takes_its_task_from_params(embed_llm: LLM) -> None:
    (output,) = embed_llm.encode(TEXT, PoolingParams(task="embed"))
    assert output.outputs.data.shape == (HIDDEN,)


def test_close_closes_the_engine(tiny_embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LLM(tiny_embedder)
    closed = []
    monkeypatch.setattr(llm.engine, "close", lambda: closed.append(True))
    llm.close()
    assert closed


# PoolingParams.


@pytest.mark.parametrize("name", ["normalize", "use_activation"])
def test_unnormalized_embedding(embed_llm: LLM, embedder: Engine, name: str) -> None:
    params: dict[str, Any] = {name: False}
    (output,) = embed_llm.embed(TEXT, pooling_params=PoolingParams(**params))
    expected = embedder.embed(TEXT, prompt="", normalize=False)[0]
    assert output.outputs.embedding == expected.tolist()


@pytest.mark.parametrize("name", ["softmax", "activation", "use_activation"])
def test_logits(classify_llm: LLM, classifier: Engine, name: str) -> None:
    params: dict[str, Any] = {name: False}
    (output,) = classify_llm.classify(TEXT, pooling_params=PoolingParams(**params))
    expected = classifier.classify(TEXT, use_activation=False).probs[0]
    assert output.outputs.probs == expected.tolist()


def test_params_by_prompt_share_batches(embed_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[int] = []
    submit = embed_llm.engine.submit

    def count(prepared: Prepared) -> Work:
        submitted.append(len(prepared.sequences))
        return submit(prepared)

    monkeypatch.setattr(embed_llm.engine, "submit", count)
    params = [PoolingParams(dimensions=8), PoolingParams(dimensions=16), PoolingParams()]
    outputs = embed_llm.embed([TEXT, TEXT, TEXT], pooling_params=params)
    assert [output.outputs.hidden_size for output in outputs] == [8, 16, HIDDEN]
    assert submitted == [3]


def test_params_by_pair(embed_llm: LLM) -> None:
    params = [PoolingParams(), PoolingParams(dimensions=8), PoolingParams(dimensions=8)]
    outputs = embed_llm.score("bread", ["salt", "salt", "flour"], pooling_params=params)
    scores = [output.outputs.score for output in outputs]
    assert scores[1] == embed_llm.score("bread", "salt", pooling_params=params[1])[0].outputs.score
    assert len(set(scores)) == 3


def test_error_names_the_prompt_among_mixed_params(embed_llm: LLM) -> None:
    params = [PoolingParams(), PoolingParams(dimensions=8), PoolingParams()]
    with pytest.raises(TextTooLong, match="item 2 ") as caught:
        embed_llm.embed([TEXT, TEXT, "bread " * 100], pooling_params=params)
    assert caught.value.index == 2


@pytest.mark.parametrize("count", [1, 3])
def test_params_of_another_length(embed_llm: LLM, count: int) -> None:
    with pytest.raises(
        InvalidOption, match=rf"prompts \(2\) and params \({count}\) must be the same"
    ):
        embed_llm.embed([TEXT, TEXT], pooling_params=[PoolingParams()] * count)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dimension": 8}, r"did you mean dimensions\?"),
        ({"step_tag_id": "3"}, "step_tag_id is '3'; allowed: a whole number"),
        ({"returned_token_ids": 3}, "returned_token_ids is 3; allowed: a list"),
        ({"dimensions": [8]}, r"dimensions is \[8\]; allowed: a whole number"),
        ({"dimensions": "8"}, "dimensions is '8'"),
        ({"dimensions": 8.0}, "dimensions is 8.0"),
        ({"dimensions": True}, "dimensions is True"),
        ({"truncate_prompt_tokens": "9"}, "truncate_prompt_tokens is '9'"),
        ({"task": ["embed"]}, r"task is \['embed'\]"),
        ({"use_activation": 1}, "allowed: True, False, None"),
    ],
)
def test_pooling_params_refuses(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        PoolingParams(**params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (PoolingParams(softmax=True), "softmax does not apply to embed"),
        (PoolingParams(normalize=True, use_activation=False), "mean the same and differ"),
        (PoolingParams(task="classify"), "task is 'classify' in a call of embed"),
        (PoolingParams(dimensions=9), "trained for: 8, 16"),
        (PoolingParams(dimensions=0), "dimensions is 0"),
        ("none", "pooling_params is str"),
    ],
)
def test_params_that_do_not_fit(embed_llm: LLM, params: Any, message: str) -> None:
    with pytest.raises((InvalidOption, InvalidDimensions), match=message):
        embed_llm.embed(TEXT, pooling_params=params)


def test_numbers_of_numpy(embed_llm: LLM) -> None:
    size: Any = np.int64(8)
    params = PoolingParams(dimensions=size)
    assert params == PoolingParams(dimensions=8)
    assert type(params.dimensions) is int


# Truncation.


def test_too_long_is_an_error(embed_llm: LLM) -> None:
    with pytest.raises(TextTooLong, match=f"limit is {MAX_LENGTH}") as caught:
        embed_llm.embed([TEXT, "bread " * 100])
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ({"truncate_prompt_tokens": 5}, 5),
        ({"truncate_prompt_tokens": -1}, MAX_LENGTH),
        ({"pooling_params": PoolingParams(truncate_prompt_tokens=6)}, 6),
        ({"tokenization_kwargs": {"truncate_prompt_tokens": 7}}, 7),
        ({"tokenization_kwargs": {"truncation": True, "max_length": 8}}, 8),
        ({"tokenization_kwargs": {"truncation": True}}, MAX_LENGTH),
        (
            {
                "truncate_prompt_tokens": 5,
                "pooling_params": PoolingParams(truncate_prompt_tokens=5),
                "tokenization_kwargs": {"truncate_prompt_tokens": 5},
            },
            5,
        ),
    ],
)
def test_truncation(embed_llm: LLM, arguments: dict[str, Any], tokens: int) -> None:
    (output,) = embed_llm.embed("bread " * 100, **arguments)
    assert len(output.prompt_token_ids) == tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"pooling_params": PoolingParams(truncate_prompt_tokens=7)},
            "PoolingParams of prompt 0: truncate_prompt_tokens is 7, but the call says 5: give one",
        ),
        (
            {"tokenization_kwargs": {"truncate_prompt_tokens": 7}},
            "truncate_prompt_tokens is 5, but truncate_prompt_tokens of tokenization_kwargs is 7",
        ),
        (
            {"tokenization_kwargs": {"max_length": 7}},
            "truncate_prompt_tokens is 5, but max_length of tokenization_kwargs is 7: give one",
        ),
        (
            {"tokenization_kwargs": {"truncation": False}},
            "truncate_prompt_tokens is 5, but truncation of tokenization_kwargs is False",
        ),
    ],
)
def test_truncations_that_differ(embed_llm: LLM, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        embed_llm.embed("bread", truncate_prompt_tokens=5, **arguments)


@pytest.mark.parametrize("count", [1, 2000])
def test_too_long_in_llm_s_words(embed_llm: LLM, count: int) -> None:
    texts = ["bread"] * (count - 1) + ["bread " * 100]
    for call in (lambda: embed_llm.embed(texts), lambda: embed_llm.score("a", texts)):
        with pytest.raises(TextTooLong) as caught:
            call()
        assert str(caught.value).endswith(
            "the limit is 64: shorten it, split it, or pass truncate_prompt_tokens=-1 to cut it"
        )
        assert caught.value.index is not None


def test_truncation_at_the_left_is_reported(embed_llm: LLM) -> None:
    text = "flour " * 100 + "bread"
    kwargs = {"truncate_prompt_tokens": 8, "truncation_side": "left"}
    long, short = embed_llm.embed([text, "bread"], tokenization_kwargs=kwargs)
    bread = embed_llm.engine.tokenize("flour bread")
    assert long.prompt_token_ids[-3:] == bread[-3:]
    assert (long.truncated, short.truncated) == (True, False)
    embed_llm.embed("bread", tokenization_kwargs={"truncation_side": "left"})


def test_chunked_prompts_have_one_answer_each(
    embed_llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["bread", "bread needs flour " * 60, "a river"]
    artifact = embed_llm.engine.artifact
    spec = dataclasses.replace(artifact.manifest.spec, chunk=True)
    manifest = dataclasses.replace(artifact.manifest, spec=spec)
    monkeypatch.setattr(
        embed_llm, "engine", Engine(dataclasses.replace(artifact, manifest=manifest))
    )
    found = embed_llm.embed(texts)
    expected = embed_llm.engine.embed(texts, prompt="", chunk=True)
    np.testing.assert_allclose([one.outputs.embedding for one in found], expected, atol=1e-6)
    assert len(found[1].prompt_token_ids) > MAX_LENGTH
    scores = embed_llm.score(texts[1], texts)
    np.testing.assert_allclose(
        [one.outputs.score for one in scores], expected @ expected[1], atol=1e-5
    )


def test_without_special_tokens(embed_llm: LLM) -> None:
    (output,) = embed_llm.embed(TEXT, tokenization_kwargs={"add_special_tokens": False})
    assert output.prompt_token_ids == embed_llm.engine.tokenize(TEXT, add_special_tokens=False)


@pytest.mark.parametrize("tokens", [0, -2, MAX_LENGTH + 1, True, "5"])
def test_truncation_out_of_range(embed_llm: LLM, tokens: Any) -> None:
    with pytest.raises(InvalidOption, match=f"allowed: .*1 to {MAX_LENGTH} tokens"):
        embed_llm.embed(TEXT, truncate_prompt_tokens=tokens)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"truncate": True}, r"did you mean truncation\?"),
        ({"truncation_side": "middle"}, "allowed: 'left', 'right'"),
        ({"padding": "max_length"}, "allowed: False, 'do_not_pad'"),
        ({"truncation": 1}, "truncation is 1"),
        ({"max_length": MAX_LENGTH + 1}, f"takes 1 to {MAX_LENGTH}"),
        ({"max_length": "8"}, "max_length is '8'; allowed: a whole number"),
        ("truncation", "tokenization_kwargs is str; allowed: a dict"),
    ],
)
def test_tokenization_kwargs_refused(embed_llm: LLM, kwargs: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        embed_llm.embed(TEXT, tokenization_kwargs=kwargs)


# What is refused.


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "list of prompts is empty"),
        ("", "item 0 is empty"),
        ([TEXT, ""], "item 1 is empty"),
        ([TEXT, 7], "prompt 1 is int"),
        ([TEXT, []], "prompt 1 is an empty list"),
        ([TEXT, ["a", "b"]], "prompt 1 is a list of str"),
        ([[1, 2], [10**6]], "item 1: token id 1000000 is outside the vocabulary"),
        ({"text": TEXT}, "prompt 0 is an object with text; allowed: prompt, prompt_token_ids"),
        ([{"prompt": 3}], "prompt is int; allowed: a string"),
        ([{"prompt_token_ids": TEXT}], "prompt_token_ids is str; allowed: a list of token ids"),
        ({}, "no keys"),
        (None, "prompts is NoneType"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_prompts_refused(embed_llm: LLM, prompts: Any, message: str) -> None:
    with pytest.raises(InvalidText, match=message):
        embed_llm.embed(prompts)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (3, "a", "data_1 is int"),
        ("a", [3], r"data_2\[0\] is int"),
        ("a", [], "at least one text on each side"),
    ],
)
def test_score_refuses(embed_llm: LLM, left: Any, right: Any, message: str) -> None:
    with pytest.raises(InvalidText, match=message):
        embed_llm.score(left, right)


@pytest.mark.parametrize(
    "call",
    [
        lambda llm: llm.classify(TEXT),
        lambda llm: llm.reward(TEXT),
        lambda llm: llm.encode(TEXT, pooling_task="classify"),
        lambda llm: llm.encode(TEXT, pooling_task="score"),
    ],
)
def test_task_that_the_model_lacks(embed_llm: LLM, call: Callable[[LLM], object]) -> None:
    with pytest.raises(UnsupportedTask):
        call(embed_llm)


def test_unknown_pooling_task(embed_llm: LLM) -> None:
    with pytest.raises(InvalidOption, match="'plugin'; allowed: embed, classify"):
        embed_llm.encode(TEXT, pooling_task="plugin")


def test_lora_is_refused(embed_llm: LLM) -> None:
    with pytest.raises(InvalidOption, match="lora_request is not supported"):
        embed_llm.embed(TEXT, lora_request=object())


# Constructor.


def test_gpu_knobs_give_one_warning(tiny_embedder: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LLM(
            tiny_embedder,
            gpu_memory_utilization=0.9,
            tensor_parallel_size=2,
            enforce_eager=True,
            max_num_seqs=8,
            enable_prefix_caching=False,
            swap_space=4,
            seed=0,
            quantization=None,
        )
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message).endswith(
        "enable_prefix_caching, enforce_eager, gpu_memory_utilization, max_num_seqs, seed, "
        "swap_space, tensor_parallel_size"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu_memory_utilisation": 0.9}, r"did you mean gpu_memory_utilization\?"),
        ({"max_model_length": 9}, r"did you mean max_model_len\?"),
        ({"quantization": "awq"}, "does not take 'quantization'"),
        ({"task": "embed"}, 'say runner="pooling"'),
        ({"dtype": "half"}, "computes in float32"),
        ({"max_model_len": MAX_LENGTH + 1}, f"takes 1 to {MAX_LENGTH} tokens"),
        ({"max_model_len": "32"}, "max_model_len is '32'; allowed: a whole number"),
        ({"max_model_len": True}, "max_model_len is True"),
        ({"runner": "draft"}, "allowed: auto, pooling, generate"),
        ({"convert": "embed"}, "convert cannot change a compiled artifact"),
        ({"hf_overrides": lambda config: config}, "allowed: a dict"),
        ({"hf_overrides": {"num_labels": 3}}, "num_labels cannot change"),
        ({"pooler_config": "MEAN"}, "pooler_config is str"),
    ],
)
def test_constructor_refuses(tiny_embedder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        LLM(tiny_embedder, **options)


@pytest.mark.parametrize("dtype", ["auto", "float32", "torch.float32", np.dtype("float32")])
def test_float32_spellings(tiny_embedder: Path, dtype: object) -> None:
    LLM(tiny_embedder, dtype=dtype)


def test_max_model_len_of_an_artifact(tiny_embedder: Path) -> None:
    llm = LLM(tiny_embedder, max_model_len=8, trust_remote_code=True)
    with pytest.raises(TextTooLong, match="limit is 8"):
        llm.embed("bread " * 20)
    (output,) = llm.embed("bread " * 20, truncate_prompt_tokens=-1)
    assert len(output.prompt_token_ids) == 8


def test_matryoshka_override_at_load(minilm: Path) -> None:
    llm = LLM(minilm, hf_overrides={"matryoshka_dimensions": [256]})
    (output,) = llm.embed(TEXT, pooling_params=PoolingParams(dimensions=256))
    assert output.outputs.hidden_size == 256
    with pytest.raises(InvalidDimensions, match="trained for: 256"):
        llm.embed(TEXT, pooling_params=PoolingParams(dimensions=128))


def test_any_dimension_by_override(minilm: Path) -> None:
    llm = LLM(minilm, hf_overrides={"is_matryoshka": True})
    (output,) = llm.embed(TEXT, pooling_params=PoolingParams(dimensions=33))
    assert output.outputs.hidden_size == 33


def test_options_reach_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def load(model: str, **options: Any) -> None:
        given.update(options, model=model)
        raise InvalidOption("stop")

    monkeypatch.setattr("poolc.api.load", load)
    with pytest.raises(InvalidOption, match="stop"):
        LLM(
            "someone/model",
            runner="pooling",
            convert="embed",
            tokenizer=Path("words"),
            max_model_len=128,
            revision="main",
            hf_overrides={"num_labels": 2},
            pooler_config=PoolerConfig(pooling_type="MEAN", returned_token_ids=[4]),
            trust_remote_code=True,
            defaults="vllm",
        )
    assert given == {
        "model": "someone/model",
        "runner": "pooling",
        "convert": "embed",
        "tokenizer": "words",
        "max_length": 128,
        "revision": "main",
        "hf_overrides": {"num_labels": 2},
        "pooler_config": {"pooling_type": "MEAN", "returned_token_ids": [4]},
        "trust_remote_code": True,
        "defaults": "vllm",
    }


def test_defaults_are_those_of_vllm(tiny_embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def load(model: object, **options: Any) -> None:
        given.append(options.get("defaults"))
        raise InvalidOption("stop")

    monkeypatch.setattr("poolc.api.load", load)
    for model, asked in (("some/model", None), ("some/model", ST), (tiny_embedder, None)):
        with pytest.raises(InvalidOption, match="stop"):
            LLM(model, defaults=asked)
    assert given == ["vllm", ST, None]


def test_pooler_config_has_the_fields_of_the_command_line() -> None:
    from poolc.compiler.pooler_fields import READERS

    assert {field.name for field in dataclasses.fields(PoolerConfig)} == set(READERS)


@pytest.mark.parametrize("make", [dict, PoolerConfig])
def test_pooler_config_of_vllms_shape(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("poolc.api.load", lambda model, **options: given.append(options))
    with pytest.raises(AttributeError):
        LLM("some/model", pooler_config=make(normalize=False, task=None))
    assert given[0]["pooler_config"] == {"normalize": False}


# The bar.


def test_own_progress_bar(embed_llm: LLM) -> None:
    seen: list[Any] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            seen.append(options)

        def update(self, n: int) -> None:
            seen.append(n)

        def close(self) -> None:
            seen.append("closed")

    embed_llm.embed([TEXT, "a"], use_tqdm=Bar)
    assert seen == [{"total": 2, "desc": "Processed prompts"}, 2, "closed"]


def test_no_bar_without_a_terminal(embed_llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    embed_llm.embed(TEXT)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = progress_bar(True, 3)
    bar.update(2)
    bar.close()
    assert "Processed prompts" in capsys.readouterr().err
