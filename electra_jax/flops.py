"""Floating-point operations: of a training step, counted from the sizes of its matrix products, and
of a device at its best.
"""

from __future__ import annotations

import re
from typing import Any

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
    """Operations of ELECTRA's forward and backward pass on a batch; a multiply-add is two.

    The backward pass costs twice the forward pass. Only matrix products count, so that the
    number can be set against a device's peak; the generator's logits, and all of its last layer but
    keys and values, are computed at `max_masked` positions a row.
    """
    sizes: dict[str, Any] = {"batch_size": batch_size, "seq_len": seq_len}
    return 3.0 * (
        generator_flops(config, predicted=max_masked, **sizes)
        + discriminator_flops(config, **sizes)
    )


def generator_flops(
    config: ElectraConfig, *, batch_size: int, seq_len: int, predicted: int
) -> float:
    """Of the generator's forward pass, which predicts tokens at so many positions a row."""
    tokens, outputs = batch_size * seq_len, batch_size * predicted
    sizes, width = config.generator, config.generator_embedding_size
    towers = 2 if config.generator_kind == "two_towers" else 1
    forward = towers * _encoder_flops(config, sizes, width, tokens, seq_len, outputs)
    return forward + 2 * outputs * width * (towers * sizes.hidden_size + config.vocab_size)


def discriminator_flops(
    config: ElectraConfig,
    *,
    batch_size: int,
    seq_len: int,
    judged: int | None = None,
    head: bool = True,
) -> float:
    """Of the discriminator's forward pass; out come `judged` positions a row (None: all)."""
    tokens, hidden = batch_size * seq_len, config.hidden_size
    outputs = tokens if judged is None else batch_size * judged
    sizes = config.discriminator
    forward = _encoder_flops(config, sizes, config.embedding_size, tokens, seq_len, outputs)
    return forward + (2 * outputs * (hidden * hidden + hidden) if head else 0)


def token_head_flops(config: ElectraConfig, outputs: int) -> float:
    """Of a head of the encoder that predicts so many tokens, forward."""
    return 2 * outputs * config.embedding_size * (config.hidden_size + config.vocab_size)


def _encoder_flops(
    config: ElectraConfig,
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
        matrices = 3 if config.architecture == "modern" else 2
        weights = 2 * hidden * hidden + matrices * hidden * sizes.intermediate_size
        return keys_and_values + 2 * outputs * weights + 4 * outputs * seq_len * hidden

    projection = 2 * tokens * in_features * hidden if in_features != hidden else 0
    last = layer(tokens if last_tokens is None else last_tokens)
    return (sizes.num_layers - 1) * layer(tokens) + last + projection
