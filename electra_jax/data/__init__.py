"""Data: text to a corpus of tokens on disk, and the corpus to batches. NumPy only, no JAX."""

from electra_jax.data.batches import TokenBatches
from electra_jax.data.corpus import Corpus
from electra_jax.data.curriculum import CurriculumBatches
from electra_jax.data.documentation import documentation_corpus
from electra_jax.data.prepare import prepare_corpus

__all__ = [
    "Corpus",
    "CurriculumBatches",
    "TokenBatches",
    "documentation_corpus",
    "prepare_corpus",
]
