"""Inputs of many formats become documents, a bounded piece at a time, in any process.

`plan_units` finds what there is and cuts it into pieces of work; `read_documents` reads one.
"""

from electra_jax.data.reading.planning import Plan, plan_units
from electra_jax.data.reading.reader import read_documents
from electra_jax.data.reading.units import (
    BAD_INPUT,
    ENCODING_ERRORS,
    MAX_DOCUMENT_BYTES,
    ReadingCounts,
    ReadingOptions,
    Unit,
)

__all__ = [
    "BAD_INPUT",
    "ENCODING_ERRORS",
    "MAX_DOCUMENT_BYTES",
    "Plan",
    "ReadingCounts",
    "ReadingOptions",
    "Unit",
    "plan_units",
    "read_documents",
]
