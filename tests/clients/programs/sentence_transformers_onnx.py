"""Ask Sentence Transformers' ONNX backend for what a folder answers; the request is on standard
input, the answer the last line of standard output.
"""

import json
import sys

import onnxruntime
from sentence_transformers import CrossEncoder, SentenceTransformer

folder, what = sys.argv[1:]
asked = json.load(sys.stdin)
options = {
    "backend": "onnx",
    "device": "cpu",
    "local_files_only": True,
    "model_kwargs": {"provider": "CPUExecutionProvider"},
}
if asked.pop("basic", False):
    session = onnxruntime.SessionOptions()
    session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options["model_kwargs"]["session_options"] = session
if what == "embed":
    model = SentenceTransformer(folder, truncate_dim=asked.pop("truncate_dim", None), **options)
    found = model.encode(asked.pop("texts"), batch_size=4, **asked)
else:
    model = CrossEncoder(folder, **options)
    found = model.predict([tuple(pair) for pair in asked["pairs"]], batch_size=2)
sys.stdout.write(json.dumps(found.tolist()) + "\n")
