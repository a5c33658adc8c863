"""The networks of fine-tuning: the discriminator's encoder with a task's head on it.

Dimensions: as in `modeling`; C outputs of a head, U width of a head's hidden layer, K beam.

A head is described by a frozen dataclass; its parameters lie under `head`. Every head's kernels
are Glorot uniform and its biases zero: tf.layers' default, which the original's heads use. Logits
are float32 whatever the compute dtype.

Source: `finetune/classification/classification_tasks.py`, `finetune/tagging/tagging_tasks.py` and
`finetune/qa/qa_tasks.py` of the original code.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.attention import MASKED
from electra_jax.config import ElectraConfig
from electra_jax.embeddings import make_embeddings
from electra_jax.errors import UserError
from electra_jax.layers import Dense, dense, drop, gelu, take_positions
from electra_jax.modeling import DISCRIMINATOR_SITES, Encoder, run_encoder

# Dropout sites of the heads, past those of both networks of pre-training.
_INPUT_SITE = 1 << 17
_HIDDEN_SITE = _INPUT_SITE + 1


def _check(head, counts: tuple[str, ...], rates: tuple[str, ...] = ()) -> None:
    for name in counts:
        value = getattr(head, name)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"head.{name}={value!r} must be a whole number of at least 1")
    for name in rates:
        if not 0.0 <= getattr(head, name) < 1.0:
            raise UserError(f"head.{name}={getattr(head, name)} must be in [0, 1)")


@dataclasses.dataclass(frozen=True)
class SequenceHead:
    """Outputs of a whole row, from the vector at [CLS]: classification and regression.

    Attributes:
      num_outputs: C: classes, independent labels, or 1 for a number.
      dropout_rate: on the vector (and on the hidden layer's output).
      hidden_layer: a layer with gelu before the output, as in Hugging Face's
        `ElectraForSequenceClassification`; the original has none.

    Raises:
      UserError: for a number out of its range.
    """

    num_outputs: int
    dropout_rate: float = 0.1
    hidden_layer: bool = False

    def __post_init__(self):
        _check(self, ("num_outputs",), ("dropout_rate",))


@dataclasses.dataclass(frozen=True)
class TokenHead:
    """Outputs at every position: tagging.

    Attributes:
      num_outputs: C, the tags.
      dropout_rate: on the vectors; 0 in the original, 0.1 in Hugging Face's
        `ElectraForTokenClassification`.

    Raises:
      UserError: for a number out of its range.
    """

    num_outputs: int
    dropout_rate: float = 0.0

    def __post_init__(self):
        _check(self, ("num_outputs",), ("dropout_rate",))


@dataclasses.dataclass(frozen=True)
class SpanHead:
    """Where an answer starts and ends, and whether there is one: question answering.

    `SpanHead(joint=False, answerability=False)` is the plain head of two logits a position of
    Hugging Face's `ElectraForQuestionAnswering`.

    Attributes:
      joint: the end's logits depend on the start (`joint_prediction` of the original).
      answerability: one more logit, positive where the row holds no answer.
      answerability_sees_start: that logit also sees the mean of the hidden states under the
        start's distribution (`answerable_uses_start_logits`), through a hidden layer.
      hidden_size: U.

    Raises:
      UserError: for a number out of its range.
    """

    joint: bool = True
    answerability: bool = True
    answerability_sees_start: bool = True
    hidden_size: int = 512

    def __post_init__(self):
        _check(self, ("hidden_size",))


Head = SequenceHead | TokenHead | SpanHead


def answer_mask(attention_mask: jax.Array, token_type_ids: jax.Array) -> jax.Array:
    """Where an answer may start or end, bool [B, L]: [CLS], and segment 1 with its [SEP].

    [CLS] stands for "no answer in this row". Source: `input_mask * segment_ids` and the one-hot
    of position 0 in `qa_tasks.py`.
    """
    is_first = jnp.arange(attention_mask.shape[1])[None] == 0
    return is_first | (attention_mask.astype(bool) & (token_type_ids == 1))


class SequenceOutput(nn.Module):
    """The layers of a `SequenceHead`."""

    config: ElectraConfig
    head: SequenceHead

    @nn.compact
    def __call__(self, hidden: jax.Array, dropout_seeds: jax.Array | None) -> jax.Array:
        """[B, 1, D], the vectors at [CLS], to float32 [B, C]."""
        head, width = self.head, self.config.hidden_size
        glorot = nn.initializers.glorot_uniform()
        x = drop(hidden[:, 0], dropout_seeds, _INPUT_SITE, head.dropout_rate)
        if head.hidden_layer:
            x = gelu(dense(x, Dense(width, width, glorot, name="dense")()))
            x = drop(x, dropout_seeds, _HIDDEN_SITE, head.dropout_rate)
        output = Dense(width, head.num_outputs, glorot, name="output")()
        return dense(x.astype(jnp.float32), output)


class TokenOutput(nn.Module):
    """The layers of a `TokenHead`."""

    config: ElectraConfig
    head: TokenHead

    @nn.compact
    def __call__(self, hidden: jax.Array, dropout_seeds: jax.Array | None) -> jax.Array:
        """[B, L, D] to float32 [B, L, C]."""
        x = drop(hidden, dropout_seeds, _INPUT_SITE, self.head.dropout_rate)
        glorot = nn.initializers.glorot_uniform()
        output = Dense(self.config.hidden_size, self.head.num_outputs, glorot, name="output")()
        return dense(x.astype(jnp.float32), output)


class SpanOutput(nn.Module):
    """The layers of a `SpanHead`; no dropout, as in the original."""

    config: ElectraConfig
    head: SpanHead

    def setup(self):
        head, width = self.head, self.config.hidden_size
        glorot = nn.initializers.glorot_uniform()
        if head.joint:
            self.start = Dense(width, 1, glorot)
            # Rows of the kernel: first those of the start's vector, then those of the token's.
            self.end_hidden = Dense(2 * width, head.hidden_size, glorot)
            self.end_output = Dense(head.hidden_size, 1, glorot)
        else:
            self.output = Dense(width, 2, glorot)
        if head.answerability and head.answerability_sees_start:
            self.answerability_hidden = Dense(2 * width, head.hidden_size, glorot)
            self.answerability_output = Dense(head.hidden_size, 1, glorot)
        elif head.answerability:
            self.answerability_output = Dense(width, 1, glorot)

    def __call__(self, hidden, allowed, start_positions=None) -> dict[str, jax.Array]:
        """The logits as in `FineTuned.__call__`; `allowed` bool [B, L] from `answer_mask`."""
        start_logits, end_logits_given = self._start_and_ends(hidden, allowed)
        if start_positions is None:
            start_positions = start_logits.argmax(axis=1)
        logits = {
            "start_logits": start_logits,
            "end_logits": end_logits_given(take_positions(hidden, start_positions[:, None])[:, 0]),
        }
        return logits | self._answerability(hidden, start_logits)

    def beams(self, hidden, allowed, beam_size: int) -> dict[str, jax.Array]:
        """The best spans as in `FineTuned.predict_spans`."""
        start_logits, end_logits_given = self._start_and_ends(hidden, allowed)
        beam_size = min(beam_size, hidden.shape[1])
        start_log_probs, starts = jax.lax.top_k(jax.nn.log_softmax(start_logits), beam_size)

        def best_ends(vectors):
            return jax.lax.top_k(jax.nn.log_softmax(end_logits_given(vectors)), beam_size)

        # One start after the other: [B, L, U] of memory, not [B, K, L, U].
        vectors = jnp.moveaxis(take_positions(hidden, starts), 1, 0)
        end_log_probs, ends = (jnp.moveaxis(x, 0, 1) for x in jax.lax.map(best_ends, vectors))
        null = jax.nn.log_softmax(end_logits_given(hidden[:, 0]))[:, 0]
        return {
            "starts": starts,
            "start_log_probs": start_log_probs,
            "ends": ends,
            "end_log_probs": end_log_probs,
            "null_log_probs": jax.nn.log_softmax(start_logits)[:, 0] + null,
        } | self._answerability(hidden, start_logits)

    def _start_and_ends(self, hidden, allowed):
        """The start's logits [B, L], and a function from the start's vector [B, D] to the end's."""

        def mask(logits):
            return jnp.where(allowed, logits, MASKED)

        if not self.head.joint:
            logits = dense(hidden.astype(jnp.float32), self.output())
            return mask(logits[..., 0]), lambda _: mask(logits[..., 1])

        # The layer on [start's vector ; token's vector], whose second half is the same for
        # every start.
        layer, end_output = self.end_hidden(), self.end_output()
        of_start, of_token = jnp.split(layer["kernel"].astype(hidden.dtype), 2)
        tokens = dense(hidden, {"kernel": of_token, "bias": layer["bias"]})  # [B, L, U]

        def end_logits_given(vectors):
            x = gelu(tokens + (vectors @ of_start)[:, None])
            return mask(dense(x.astype(jnp.float32), end_output)[..., 0])

        start_logits = dense(hidden.astype(jnp.float32), self.start())[..., 0]
        return mask(start_logits), end_logits_given

    def _answerability(self, hidden, start_logits) -> dict[str, jax.Array]:
        if not self.head.answerability:
            return {}
        x = hidden[:, 0]
        if self.head.answerability_sees_start:
            probabilities = jax.nn.softmax(start_logits).astype(hidden.dtype)
            start = jnp.einsum("bl,bld->bd", probabilities, hidden)
            x = jnp.concatenate([x, start], axis=-1)
            x = gelu(dense(x, self.answerability_hidden()))
        logits = dense(x.astype(jnp.float32), self.answerability_output())
        return {"no_answer_logits": logits[..., 0]}


_OUTPUTS = {SequenceHead: SequenceOutput, TokenHead: TokenOutput, SpanHead: SpanOutput}


class FineTuned(nn.Module):
    """The discriminator's encoder and a head.

    Parameters: `embeddings` and `encoder`, named and shaped as in `modeling.Electra`, and `head`.
    Dropout is on where `dropout_seeds` are given.
    """

    config: ElectraConfig
    head: Head

    def setup(self):
        config = self.config
        self.embeddings = make_embeddings(config, config.embedding_size)
        self.encoder = Encoder(config, config.discriminator, config.embedding_size)
        self.output = _OUTPUTS[type(self.head)](config, self.head, name="head")

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
        start_positions: jax.Array | None = None,
    ) -> jax.Array | dict[str, jax.Array]:
        """The head's logits.

        Args:
          input_ids: int [B, L].
          attention_mask: bool [B, L], False at padding; None: no padding.
          token_type_ids: int [B, L], the segment of each token (`corruption.token_types`); None:
            all 0, and then a `SpanHead` allows nothing but [CLS].
          dropout_seeds: uint32 [B, 2]; None: no dropout.
          start_positions: int [B], for a joint `SpanHead`: the starts that the ends are told;
            None: the model's own best ones.

        Returns:
          All float32. Of a `SequenceHead` [B, C], of a `TokenHead` [B, L, C]. Of a `SpanHead` a
          dict: `start_logits` and `end_logits` [B, L], very negative outside `answer_mask`, and
          with answerability `no_answer_logits` [B].
        """
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        if isinstance(self.head, SequenceHead):
            at_cls = jnp.zeros((len(input_ids), 1), jnp.int32)
            return self.output(self.encode(*arrays, at_cls), dropout_seeds)
        hidden = self.encode(*arrays)
        if isinstance(self.head, TokenHead):
            return self.output(hidden, dropout_seeds)
        allowed = _allowed(hidden, attention_mask, token_type_ids)
        return self.output(hidden, allowed, start_positions)

    def encode(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """The last hidden states, [B, L, D] in the compute dtype; arguments as in `__call__`.

        Where `positions` int [B, P] are given, only those there, [B, P, D], for less work.
        """
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        return run_encoder(
            self.embeddings,
            self.encoder,
            *arrays,
            site=DISCRIMINATOR_SITES,
            positions=positions,
        )

    def predict_spans(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        *,
        beam_size: int = 20,
    ) -> dict[str, jax.Array]:
        """The K likeliest starts of each row and, given each, the K likeliest ends; no dropout.

        Probabilities are over the row's allowed positions (`answer_mask`). Where K is more than
        there are of them, the rest of a beam has log-probabilities of about -1e9.

        Args:
          beam_size: K (20 in the original), at most L.

        Returns:
          A dict: `starts` int32 [B, K] and `start_log_probs` float32 [B, K], likeliest first;
          `ends` int32 [B, K, K] and `end_log_probs` float32 [B, K, K], likeliest first, those of
          one start in the last axis; `null_log_probs` float32 [B], of start and end both at
          [CLS]; with answerability `no_answer_logits` float32 [B].
        """
        hidden = self.encode(input_ids, attention_mask, token_type_ids)
        return self.output.beams(
            hidden, _allowed(hidden, attention_mask, token_type_ids), beam_size
        )


def _allowed(hidden, attention_mask, token_type_ids):
    shape = hidden.shape[:2]
    return answer_mask(
        jnp.ones(shape, bool) if attention_mask is None else attention_mask,
        jnp.zeros(shape, jnp.int32) if token_type_ids is None else token_type_ids,
    )
