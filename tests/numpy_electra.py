"""The encoder's forward pass written again in NumPy, row by row and head by head."""

import jax
import numpy as np
from scipy import special


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def layer_norm(x, p):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]


def gelu(x):
    return x * 0.5 * (1 + special.erf(x / np.sqrt(2)))


def attend(x, p, attention_mask, heads):
    """Head by head, over the keys that are no padding alone."""
    width = x.shape[-1]
    size = width // heads
    query, key, value = (dense(x, p)[:, i * width : (i + 1) * width] for i in range(3))
    out = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[attention_mask][:, part].T / np.sqrt(size)
        out[:, part] = special.softmax(scores, axis=-1) @ value[attention_mask][:, part]
    return out


def encode_row(embeddings, encoder, ids, attention_mask, types, heads):
    x = embeddings["word"][ids] + embeddings["token_type"][types]
    x = layer_norm(x + embeddings["position"][: len(ids)], embeddings["layer_norm"])
    if "projection" in encoder:
        x = dense(x, encoder["projection"])
    for index in range(encoder["layers"]["qkv"]["bias"].shape[0]):
        p = jax.tree.map(lambda leaf: leaf[index], encoder["layers"])  # noqa: B023
        attended = dense(attend(x, p["qkv"], attention_mask, heads), p["attention_out"])
        x = layer_norm(x + attended, p["attention_layer_norm"])
        forward = dense(gelu(dense(x, p["feed_forward_in"])), p["feed_forward_out"])
        x = layer_norm(x + forward, p["output_layer_norm"])
    return x
