"""Models from the ONNX graph that they ship, without PyTorch: optimum's and Sentence Transformers'
exports. The graph is the trunk; ``surgery.py`` puts the heads behind it.
"""
