"""A CUDA that computes nothing, under the real ONNX Runtime: what it does with our graphs."""
