"""What an exported model file holds: the names that the exporter writes and the runtime reads.

The graph is one streaming step. Its inputs are ``frame``, float32 [1, C, F, n] with any n >= 1, and
one ``state.<name>`` for each tensor of the network's state; a stream starts with all of them zero.
Its outputs are

    beat, downbeat: float32 [1, n], probabilities
    tempo: float32 [1, n, bins], probabilities; class k is k + 1 BPM
    new_state.<name>: the next value of ``state.<name>``

and everything that a reader must know besides is in the metadata, under the keys ``METADATA``.
"""

from __future__ import annotations

FORMAT_VERSION = "1"
FRAME = "frame"
OUTPUTS = ("beat", "downbeat", "tempo")
STATE = "state."  # before the name of a state tensor
NEW = "new_"  # before the input's name, for its next value
PREFIX = "beattrack."  # before each metadata key
METADATA = (
    "format_version",
    "features",  # FeatureConfig, JSON
    "model",  # ModelConfig, JSON
    "decoder",  # DecoderConfig, JSON
    "subbands_sha256",  # of the sub-band curves; only if features.bpfed
    "latency_frames",
    "provenance",  # JSON: training run, data, licence, commit
)
