"""An artifact in other homes: a Triton model repository, a Sentence Transformers folder.

Reads artifacts and writes folders; nothing here runs a model, and no torch is imported.
"""
