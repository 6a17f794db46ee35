"""What canonical graphs have in common, wherever they come from. Imports no torch."""

from __future__ import annotations

# The newest format that the oldest supported ONNX Runtime reads.
IR_VERSION = 11
# Names of the symbolic dimensions.
BATCH, SEQ = "batch", "seq"
