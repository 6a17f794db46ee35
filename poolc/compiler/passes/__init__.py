"""Graph passes: one a file, each ``(model) -> PassResult(model, modified)`` (onnx_ir's contract)."""
