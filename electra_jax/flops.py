"""Floating-point operations: of a training step, counted from the sizes of its matrix products, and
of a device at its best.
"""

from __future__ import annotations

import re

from electra_jax.config import ElectraConfig, EncoderConfig

# Part of a device's name and its dense bfloat16 (V100 and T4: float16) peak, from the vendors'
# data sheets.
_PEAK_TERAFLOPS = (
    ("h100 pcie", 756.0),
    ("h100", 989.4),
    ("h200", 989.4),
    ("b200", 2250.0),
    ("a100", 312.0),
    ("l40s", 362.0),
    ("l4", 121.0),
    ("v100", 125.0),
    ("t4", 65.0),
    ("tpu v6", 918.0),
    ("tpu v5 lite", 197.0),
    ("tpu v5e", 197.0),
    ("tpu v5", 459.0),  # v5p
    ("tpu v4", 275.0),
    ("tpu v3", 61.5),  # a device is one of the chip's two cores
)


def peak_flops_of(device_kind: str) -> float | None:
    """Dense bfloat16 operations a second of a device, by its name; None where not known."""
    for name, tera in _PEAK_TERAFLOPS:
        if re.search(rf"\b{name}\b", device_kind.lower()):
            return tera * 1e12
    return None


def train_step_flops(
    config: ElectraConfig, *, batch_size: int, seq_len: int, max_masked: int
) -> float:
    """Operations of forward and backward pass on one batch; a multiply-add counts as two.

    The backward pass costs twice the forward pass. Only matrix products count, so that the
    number can be set against a device's peak; the generator's logits, and all of its last layer but
    keys and values, are computed at `max_masked` positions a row.
    """
    tokens, masked = batch_size * seq_len, batch_size * max_masked
    generator = config.generator
    table_width = config.embedding_size if config.sharing != "none" else generator.hidden_size
    hidden = config.hidden_size
    forward = _encoder_flops(config.discriminator, config.embedding_size, tokens, seq_len)
    forward += 2 * tokens * (hidden * hidden + hidden)
    forward += _encoder_flops(generator, table_width, tokens, seq_len, masked)
    forward += 2 * masked * table_width * (generator.hidden_size + config.vocab_size)
    return 3.0 * forward


def _encoder_flops(
    sizes: EncoderConfig,
    in_features: int,
    tokens: int,
    seq_len: int,
    last_tokens: int | None = None,
) -> float:
    """Of the forward pass; `last_tokens` come out of the last layer (None: all of them)."""
    hidden = sizes.hidden_size

    def layer(outputs):
        keys_and_values = 2 * tokens * 2 * hidden * hidden
        weights = 2 * hidden * hidden + 2 * hidden * sizes.intermediate_size
        return keys_and_values + 2 * outputs * weights + 4 * outputs * seq_len * hidden

    projection = 2 * tokens * in_features * hidden if in_features != hidden else 0
    last = layer(tokens if last_tokens is None else last_tokens)
    return (sizes.num_layers - 1) * layer(tokens) + last + projection
