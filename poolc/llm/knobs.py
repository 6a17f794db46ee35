"""The constructor arguments of vLLM's LLM: which ones poolc ignores, refuses or reads, and how.

Knows names and values only; ``facade.py`` decides what is compiled or loaded.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from poolc.errors import InvalidOption
from poolc.llm.truncation import unknown_option

# What tells vLLM's engine about devices, memory, scheduling and loading. None of it changes an
# answer, and poolc decided all of it when it compiled: accepted, with one warning.
IGNORED = frozenset(
    {
        "async_scheduling",
        "attention_backend",
        "attention_config",
        "block_size",
        "calculate_kv_scales",
        "collect_detailed_traces",
        "compilation_config",
        "cpu_offload_gb",
        "cuda_graph_sizes",
        "cudagraph_capture_sizes",
        "data_parallel_backend",
        "data_parallel_rank",
        "data_parallel_size",
        "data_parallel_size_local",
        "decode_context_parallel_size",
        "device",
        "disable_async_output_proc",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "disable_hybrid_kv_cache_manager",
        "disable_log_requests",
        "disable_log_stats",
        "disable_sliding_window",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_dbo",
        "enable_eplb",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enable_sleep_mode",
        "enforce_eager",
        "generation_config",
        "gpu_memory_utilization",
        "ignore_patterns",
        "kernel_config",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "kv_events_config",
        "kv_sharing_fast_prefill",
        "kv_transfer_config",
        "load_format",
        "logits_processors",
        "logprobs_mode",
        "long_prefill_token_threshold",
        "mamba_block_size",
        "mamba_cache_dtype",
        "mamba_ssm_cache_dtype",
        "max_context_len_to_capture",
        "max_cudagraph_capture_size",
        "max_logprobs",
        "max_long_partial_prefills",
        "max_num_batched_tokens",
        "max_num_partial_prefills",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "max_seq_len_to_capture",
        "model_impl",
        "model_loader_extra_config",
        "multi_step_stream_outputs",
        "num_gpu_blocks_override",
        "num_lookahead_slots",
        "num_scheduler_steps",
        "observability_config",
        "optimization_level",
        "otlp_traces_endpoint",
        "override_generation_config",
        "pipeline_parallel_size",
        "preemption_mode",
        "prefix_caching_hash_algo",
        "profiler_config",
        "ray_workers_use_nsight",
        "renderer_num_workers",
        "safetensors_load_strategy",
        "scheduler_cls",
        "scheduler_delay_factor",
        "scheduling_policy",
        "seed",
        "served_model_name",
        "stream_interval",
        "swap_space",
        "tensor_parallel_size",
        "tokenizer_mode",
        "use_tqdm_on_load",
        "use_v2_block_manager",
        "worker_cls",
        "worker_extension_cls",
    }
)

# What would change the answers, or went away: refused with what to do, unless None or False.
REFUSED: Mapping[str, str] = {
    "quantization": "compile the model itself; its precision is chosen there",
    "enable_lora": "merge the adapter into the model first",
    "tokenizer_revision": "pass a folder that holds that tokenizer as tokenizer",
    "code_revision": "pass a folder that holds that code as model",
    "skip_tokenizer_init": "leave it out; prompts may be token ids either way",
    "limit_mm_per_prompt": "leave it out; models of text are what poolc runs",
    "mm_processor_kwargs": "leave it out; models of text are what poolc runs",
    "speculative_config": "leave it out; a pooling model generates nothing",
    "task": 'say runner="pooling" and, where needed, convert="embed", "classify" or "reward"',
    "override_pooler_config": "it is called pooler_config now",
    "hf_token": "set the environment variable HF_TOKEN",
}

_READ = (
    "runner",
    "convert",
    "tokenizer",
    "dtype",
    "max_model_len",
    "revision",
    "hf_overrides",
    "pooler_config",
    "trust_remote_code",
    "defaults",
    "chat_template",
)
_FLOAT32 = ("auto", "float32", "float")


def check_knobs(given: Mapping[str, Any]) -> None:
    """Warn once about the knobs that have no effect; raise InvalidOption for any other name."""
    for name, value in given.items():
        if name in REFUSED and value not in (None, False):
            raise InvalidOption(f"LLM does not take {name!r}: {REFUSED[name]}", param=name)
        if name not in IGNORED and name not in REFUSED:
            raise unknown_option("LLM", name, [*_READ, *sorted(IGNORED)])
    ignored = sorted(set(given) & IGNORED)
    if ignored:
        warnings.warn(
            f"these options of vLLM's engine have no effect in poolc: {', '.join(ignored)}",
            UserWarning,
            stacklevel=3,
        )


def check_dtype(dtype: object) -> None:
    """Accept what means float32, torch.float32 included. Raises InvalidOption."""
    name = str(dtype).removeprefix("torch.")
    if name not in _FLOAT32:
        raise InvalidOption(
            f"dtype is {name!r}; the cpu target computes in float32: pass 'auto' or 'float32'",
            param="dtype",
        )


def plain_overrides(value: object) -> dict[str, Any] | None:
    """Return ``hf_overrides`` as a dict. Raises InvalidOption for a function or anything else."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidOption(
            f"hf_overrides is {type(value).__name__}; allowed: a dict (a function cannot be "
            "recorded in an artifact)",
            param="hf_overrides",
        )
    return dict(value)


def plain_pooler_config(value: object) -> dict[str, Any] | None:
    """Return ``pooler_config``, a dict or a dataclass such as vLLM's, as a dict without Nones.

    Raises InvalidOption for anything else.
    """
    if value is None:
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        raise InvalidOption(
            f"pooler_config is {type(value).__name__}; allowed: a dict", param="pooler_config"
        )
    return {str(name): item for name, item in value.items() if item is not None}
