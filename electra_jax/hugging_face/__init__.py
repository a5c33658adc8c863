"""Models in Hugging Face's files: reading a directory, and the names both ways.

Only PyTorch-free formats are read, and nothing of a file is ever executed.
"""

from electra_jax.hugging_face.directory import (
    HuggingFaceModel,
    load_hugging_face,
    model_from_tensors,
)
from electra_jax.hugging_face.names import HEADS, from_hugging_face, to_hugging_face
from electra_jax.hugging_face.pair import PARTS, join_pair, load_hugging_face_pair

__all__ = [
    "HEADS",
    "PARTS",
    "HuggingFaceModel",
    "from_hugging_face",
    "join_pair",
    "load_hugging_face",
    "load_hugging_face_pair",
    "model_from_tensors",
    "to_hugging_face",
]
