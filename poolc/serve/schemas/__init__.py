"""What requests and replies look like, one file a dialect. Unknown request fields are ignored, as
clients expect.

Request models are validated. Replies with vectors are built from arrays (``bodies.py``): their
models here only tell OpenAPI what they look like.
"""
