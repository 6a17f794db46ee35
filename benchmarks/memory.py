"""Peak resident memory of a process that embeds one long text, against the graph without blocks.

    python -m benchmarks.memory [--model M] [--tokens 8192] [--whole]

Without ``--model``: ModernBERT-base's sizes with random weights. Each graph runs in a process of
its own that loads the artifact, embeds a text of token ids and says what was resident at most,
weights included. ``--whole`` also runs the canonical graph, whose attention is whole: gigabytes,
and minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import poolc
from benchmarks.options import parser, write
from poolc.model_cache.artifact import Artifact, is_artifact, open_artifact

SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "vocab_size": 50368,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "max_position_embeddings": 8192,
}


def main() -> None:
    """Compile, run each graph in its process and print a table."""
    options = parser("Peak memory of one long text")
    options.add_argument("--tokens", type=int, default=8192)
    options.add_argument("--whole", action="store_true", help="run the graph without blocks too")
    options.add_argument("--child", choices=("blocks", "whole"), help="for this program's own use")
    arguments = options.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, Path(arguments.model), arguments.tokens)))
        return
    with tempfile.TemporaryDirectory() as folder:
        artifact = compiled(arguments.model, Path(folder))
        found = {
            kind: started(kind, artifact.path, arguments.tokens)
            for kind in (("blocks", "whole") if arguments.whole else ("blocks",))
        }
        report = artifact.report()
    show(found)
    for one in found.values():
        one.pop("vector")
    write(
        {"tokens": arguments.tokens, "graphs": found, "compiled": report["memory"]}, arguments.json
    )


def compiled(model: str | None, folder: Path) -> Artifact:
    """Open an artifact that was given (with its canonical graph, for ``--whole``), or make one."""
    if model is not None and is_artifact(Path(model)):
        return open_artifact(Path(model))
    model = model or str(modernbert_base(folder / "modernbert-base"))
    made = poolc.compile(model, output=folder / "artifact", keep_canonical=True)
    return open_artifact(made.path)


def started(kind: str, artifact: Path, num_tokens: int) -> dict[str, Any]:
    """Run one graph in a process of its own; return what it says."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", kind]
    command += ["--model", str(artifact), "--tokens", str(num_tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(kind: str, artifact: Path, num_tokens: int) -> dict[str, Any]:
    """Embed one text of token ids; the canonical graph runs as it is, without the runtime."""
    ids = np.random.default_rng(0).integers(10, 400, num_tokens).tolist()
    if kind == "blocks":
        engine = poolc.load(artifact)
        engine.embed([ids[:16]])
        loaded, start = resident_bytes("VmRSS"), time.perf_counter()
        vector = engine.embed([ids])[0]
    else:
        session, names = canonical(artifact)
        feeds = {name: np.ones((1, num_tokens), np.int64) for name in names}
        session.run(["sentence_embedding"], {name: f[:, :16] for name, f in feeds.items()})
        feeds["input_ids"][0] = ids
        loaded, start = resident_bytes("VmRSS"), time.perf_counter()
        vector = session.run(["sentence_embedding"], feeds)[0][0]
    seconds = time.perf_counter() - start
    peak = resident_bytes("VmHWM")
    numbers = [float(number) for number in vector]
    return {"loaded_bytes": loaded, "peak_bytes": peak, "seconds": seconds, "vector": numbers}


def canonical(artifact: Path) -> tuple[Any, list[str]]:
    """Open the graph as it was before lowering, with the options that artifacts run with."""
    import onnxruntime

    from poolc.runtime.backends.onnxruntime import session_options

    session = onnxruntime.InferenceSession(
        str(artifact / "canonical.onnx"),
        session_options(onnxruntime),
        providers=["CPUExecutionProvider"],
    )
    return session, [value.name for value in session.get_inputs()]


def resident_bytes(field: str) -> int:
    """Return VmRSS (now) or VmHWM (the most so far) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def modernbert_base(folder: Path) -> Path:
    """Save ModernBERT-base's sizes with seeded random weights and a small tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    folder.mkdir()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    corpus = [f"word{i}" for i in range(500)]
    words.train_from_iterator(corpus, trainers.WordLevelTrainer(special_tokens=special))
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = dict(zip(("unk", "cls", "sep", "pad", "mask"), special, strict=True))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=8192,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{kind}_token": name for kind, name in names.items()},
    ).save_pretrained(folder)
    ids = {f"{kind}_token_id": special.index(name) for kind, name in names.items() if kind != "unk"}
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(**SIZES, **ids)
    model = transformers.ModernBertModel(config)
    # 22 random layers add up to large numbers, and their errors in fp32 beyond the gate's bound.
    model.final_norm.weight.data.mul_(0.1)
    model.save_pretrained(folder)
    return folder


def show(found: dict[str, Any]) -> None:
    """Print a Markdown table."""
    print("| attention | loaded MB | peak MB | seconds, one thread |")
    print("| --- | --- | --- | --- |")
    for kind, one in found.items():
        loaded, peak = one["loaded_bytes"] / 1e6, one["peak_bytes"] / 1e6
        print(f"| {kind} | {loaded:,.0f} | {peak:,.0f} | {one['seconds']:.1f} |")
    if len(found) > 1:
        vectors = [np.array(one["vector"]) for one in found.values()]
        print(f"\nlargest difference of any number: {np.abs(vectors[0] - vectors[1]).max():.1e}")
        found["blocks"]["max_abs_difference"] = float(np.abs(vectors[0] - vectors[1]).max())


if __name__ == "__main__":
    main()
