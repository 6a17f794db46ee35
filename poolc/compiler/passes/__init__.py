"""Graph passes, one a file: ``(model) -> PassResult(model, modified)``, onnx_ir's contract."""
