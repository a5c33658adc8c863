"""A pre-trained model applied to texts: which tokens look replaced, what a mask hides, vectors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax import parallel
from electra_jax.config import ElectraConfig
from electra_jax.errors import UserError
from electra_jax.inference_steps import (
    discriminate_rows,
    embed_rows,
    generate_rows,
    score_rows,
)
from electra_jax.layers import unstack_layers
from electra_jax.modeling import Electra
from electra_jax.pretrained import Pretrained, load_pretrained
from electra_jax.run_config import PLATFORM_DEFAULTS
from electra_jax.steps import in_parts
from electra_jax.tasks import EvaluationBatches, Features

# What rows are padded to; each is compiled once.
_LENGTHS = (*range(16, 129, 16), *range(160, 257, 32), *range(320, 513, 64))
# Texts are sorted by length within so many batches.
_CHUNK_BATCHES = 16
# What a CPU works on at a time: the fastest of 256 to 4096 for ELECTRA-small.
_CPU_TOKENS = 1024
POOLINGS = ("mean", "cls", "tokens")


@dataclasses.dataclass(frozen=True)
class Detection:
    """What a discriminator says of a text.

    Attributes:
      tokens: the pieces that it was cut into, without special tokens.
      offsets: int [tokens, 2], the characters [start, end) of the text that each is.
      probabilities: float [tokens], of having been replaced.
      note: what to know of it ("cut to ..."); "" for nothing.
    """

    tokens: list[str]
    offsets: np.ndarray
    probabilities: np.ndarray
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """`tokens`, `probabilities` to six digits, and `note` if there is one."""
        rounded = [round(float(p), 6) for p in self.probabilities]
        answer = {"tokens": self.tokens, "probabilities": rounded}
        return answer | ({"note": self.note} if self.note else {})


class Placed(NamedTuple):
    """A model on the devices at hand, for inference.

    Attributes:
      config: with the platform's dtype, and each layer's tensors apart.
      params: on every device of the mesh.
      mesh: the devices.
      batch_size: rows at a time, a multiple of the devices.
      part_tokens: as of `steps.in_parts`; None: all rows at once.
    """

    config: ElectraConfig
    params: Any
    mesh: Any
    batch_size: int
    part_tokens: int | None

    def compile(self, step: Callable) -> Any:
        """A pure step `(params, batch) -> arrays [B, ...]` over the devices."""
        if self.part_tokens is not None:
            step = functools.partial(in_parts, step, tokens=self.part_tokens)
        return parallel.parallelize(step, self.mesh, donate_state=False)


def place(pretrained: Pretrained, *, platform: str, batch_size: int) -> Placed:
    """Puts a model where it is to run.

    Args:
      pretrained: the model.
      platform: "auto", "cpu", "gpu" or "tpu".
      batch_size: rounded up to a multiple of the devices.

    Raises:
      UserError: if the platform is not to be had.
    """
    chosen = parallel.choose_platform(platform)
    defaults = PLATFORM_DEFAULTS[chosen]
    parallel.enable_compilation_cache()
    mesh = parallel.make_mesh(None if platform == "auto" else platform)
    one_cpu = chosen == "cpu" and mesh.size == 1
    config = dataclasses.replace(
        pretrained.config,
        dtype=defaults["dtype"],
        scan_layers=False,
        stacked_layers=False,
        rows_apart=one_cpu,
    )
    params = jax.tree.map(jnp.asarray, unstack_layers(pretrained.params))
    rows = -(-batch_size // mesh.size) * mesh.size
    part_tokens = _CPU_TOKENS if one_cpu else None
    return Placed(config, parallel.replicate(params, mesh), mesh, rows, part_tokens)


def _joined(parts: Sequence[tuple[int, int]], outputs: Iterator[np.ndarray]) -> np.ndarray:
    """Probabilities [tokens] from those of windows, each token's where it has most context.

    Args:
      parts: the windows [start, end), the last one at the end of the text.
      outputs: gives the row of each window that is not empty, special tokens included.
    """
    probabilities = np.zeros(parts[-1][1], np.float32)
    context = np.full(parts[-1][1], -1)
    for start, end in parts:
        if start == end:
            continue
        found = np.minimum(np.arange(end - start), np.arange(end - start)[::-1])
        better = found > context[start:end]
        context[start:end][better] = found[better]
        probabilities[start:end][better] = next(outputs)[1 : 1 + end - start][better]
    return probabilities


class TextModel:
    """A model of a run or a Hugging Face directory, on the devices at hand.

    Texts are batched by length; each padded length is compiled once, and kept in the compilation
    cache.

    Attributes:
      pretrained: the model: config, parameters, tokenizer.
      max_tokens: tokens of a text that fit, beside [CLS] and [SEP].
    """

    def __init__(
        self, directory: Path | str | Pretrained, *, platform: str = "auto", batch_size: int = 32
    ):
        """Loads a model.

        Args:
          directory: where it is, or what `from_pretrained` gave.
          platform: "auto", "cpu", "gpu" or "tpu".
          batch_size: texts at a time, at most.

        Raises:
          UserError: if there is no model.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be positive")
        if not isinstance(directory, Pretrained):
            directory = load_pretrained(directory, what="model")
        self.pretrained = directory
        self._placed = place(directory, platform=platform, batch_size=batch_size)
        config = self._placed.config
        self._apply_fn = Electra(config).apply
        self._lengths = [n for n in _LENGTHS if n < config.max_positions] + [config.max_positions]
        self._steps: dict[tuple, Any] = {}
        self.max_tokens = config.max_positions - 2

    def detect(self, texts: Iterable[str], *, windows: bool = False) -> Iterator[Detection]:
        """What the discriminator says of each text, in order; an empty text has no tokens.

        Args:
          texts: read as they are needed.
          windows: texts that are too long are scored in windows that overlap by half, each token
            where it has most context; else they are cut, and the note says so.

        Raises:
          UserError: if the model has no discriminator.
        """
        self._require("discriminator_head", "discriminator")
        step = self._step(discriminate_rows)
        for chunk in self._chunks(texts):
            encoded = [self.pretrained.tokenizer.encode_with_offsets(text) for text in chunk]
            pieces = [
                self._windows(len(ids)) if windows else [(0, min(len(ids), self.max_tokens))]
                for ids, _ in encoded
            ]
            rows = [
                ids[start:end]
                for (ids, _), parts in zip(encoded, pieces, strict=True)
                for start, end in parts
                if end > start
            ]
            outputs = iter(self._run(step, rows))
            for (ids, offsets), parts in zip(encoded, pieces, strict=True):
                scored = parts[-1][1]
                probabilities = _joined(parts, outputs)
                if not np.isfinite(probabilities).all():
                    raise UserError("the model's probabilities are no numbers: bring it anew")
                note = "" if scored == len(ids) else f"cut to {scored:,} of {len(ids):,} tokens"
                tokens = [self.pretrained.tokenizer.piece(i) for i in ids[:scored].tolist()]
                yield Detection(tokens, offsets[:scored], probabilities, note)

    def fill_mask(
        self, texts: Iterable[str], *, top_k: int = 5, strict: bool = True
    ) -> Iterator[list[list[dict]] | UserError]:
        """The generator's best pieces for each "[MASK]" of each text.

        Args:
          texts: read as they are needed.
          top_k: pieces a mask.
          strict: False: a text without a mask, or with too many tokens, gives the error instead of
            raising it.

        Returns:
          For each text and each of its masks, `top_k` dicts of `token` and `probability`.

        Raises:
          UserError: if the model has no generator, or for such a text.
        """
        self._require("generator_head", "generator")
        size = self.pretrained.config.vocab_size
        if not 1 <= top_k <= size:
            raise UserError(f"top_k={top_k} must lie in [1, {size}]")
        step = self._step(generate_rows, top_k=top_k)
        tokenizer, mask = self.pretrained.tokenizer, self.pretrained.tokenizer.special_ids.mask
        for chunk in self._chunks(texts):
            found = [self._with_masks(text) for text in chunk]
            problems = [row for row in found if isinstance(row, UserError)]
            if problems and strict:
                raise problems[0]
            rows = [row for row in found if not isinstance(row, UserError)]
            places = [np.flatnonzero(row == mask) + 1 for row in rows]
            most = 1 << (max(map(len, places), default=1) - 1).bit_length()  # few shapes to compile
            padded = [np.pad(place, (0, most - len(place))) for place in places]
            outputs = iter(self._run(step, rows, positions=np.array(padded)))
            for row in found:
                if isinstance(row, UserError):
                    yield row
                    continue
                output, count = next(outputs), (row == mask).sum()
                yield [
                    [
                        {"token": tokenizer.piece(i), "probability": float(p)}
                        for p, i in zip(output["probabilities"][k], ids.tolist(), strict=True)
                    ]
                    for k, ids in enumerate(output["ids"][:count])
                ]

    def score(self, texts: Iterable[str], *, strict: bool = True) -> Iterator[float | UserError]:
        """Pseudo-log-likelihood of each text, in nats: higher where it is more usual.

        Clark et al. 2020b: the sum of -E(x)_t over its tokens. Not normalised over texts: compare
        texts that say one thing, such as the hypotheses of a recogniser.

        Args:
          texts: read as they are needed.
          strict: False: a text with no or too many tokens gives the error instead of raising it.

        Raises:
          UserError: if the model was not trained as Electric, or for such a text.
        """
        objective = self.pretrained.metadata.get("config", {}).get("objective", {}).get("name")
        if objective != "electric":
            raise UserError(
                f"the model was trained with objective.name={objective!r}, whose outputs are no "
                "energies: train one with --config.objective.name=electric"
            )
        ids = self.pretrained.tokenizer.special_ids
        step = self._step(score_rows, special=(ids.pad, ids.cls, ids.sep, ids.mask))
        for chunk in self._chunks(texts):
            rows = [np.array(row) for row in self.pretrained.tokenizer.encode_batch(chunk)]
            fits = [0 < len(row) <= self.max_tokens for row in rows]
            scores = iter(self._run(step, [r for r, ok in zip(rows, fits, strict=True) if ok]))
            for text, row, ok in zip(chunk, rows, fits, strict=True):
                if ok:
                    yield float(next(scores))
                    continue
                problem = UserError(
                    f"text {text[:60]!r} has {len(row):,} tokens, and the model scores 1 to "
                    f"{self.max_tokens:,}: shorten it"
                )
                if strict:
                    raise problem
                yield problem

    def _with_masks(self, text: str) -> np.ndarray | UserError:
        """A text's ids, [MASK] among them, or what is wrong with it."""
        tokenizer, mask = self.pretrained.tokenizer, self.pretrained.tokenizer.special_ids.mask
        parts = tokenizer.encode_batch(text.split("[MASK]"))
        ids = list(itertools.chain.from_iterable([*part, mask] for part in parts))[:-1]
        if mask not in ids:
            return UserError(f"text {text[:60]!r} has no [MASK]: put one where to guess")
        if len(ids) > self.max_tokens:
            return UserError(
                f"text {text[:60]!r} has {len(ids):,} tokens, and the model takes "
                f"{self.max_tokens:,}: shorten it"
            )
        return np.array(ids)

    def embed(self, texts: Iterable[str], *, pooling: str = "mean") -> Iterator[np.ndarray]:
        """The encoder's vectors of each text; one that is too long is cut.

        Args:
          texts: read as they are needed.
          pooling: "mean" over all its tokens or that of "cls": [D]; "tokens": [tokens, D], without
            special ones.

        Raises:
          UserError: for another pooling.
        """
        if pooling not in POOLINGS:
            raise UserError(f"pooling={pooling!r} is unknown: use one of {', '.join(POOLINGS)}")
        step = self._step(embed_rows, pooling=pooling)
        for chunk in self._chunks(texts):
            ids = self.pretrained.tokenizer.encode_batch(chunk)
            rows = [np.array(row[: self.max_tokens], np.int64) for row in ids]
            for row, output in zip(rows, self._run(step, rows), strict=True):
                yield output[1 : 1 + len(row)] if pooling == "tokens" else output

    def _require(self, part: str, what: str) -> None:
        if part not in self.pretrained.params:
            raise UserError(f"the model has no {what}: give a run of train.py, or a model with one")

    def _step(self, function: Callable, **kwargs) -> Any:
        """The compiled form of a pure function, made once."""
        key = (function, *sorted(kwargs.items()))
        if key not in self._steps:
            pad = self.pretrained.tokenizer.special_ids.pad
            step = functools.partial(function, apply_fn=self._apply_fn, pad=pad, **kwargs)
            self._steps[key] = self._placed.compile(step)
        return self._steps[key]

    def _chunks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        texts = iter(texts)
        while chunk := list(itertools.islice(texts, _CHUNK_BATCHES * self._placed.batch_size)):
            yield chunk

    def _windows(self, length: int) -> list[tuple[int, int]]:
        """Stretches [start, end) of tokens that fit, overlapping by half."""
        if length <= self.max_tokens:
            return [(0, length)]
        stride = max(1, self.max_tokens // 2)
        starts = [*range(0, length - self.max_tokens, stride), length - self.max_tokens]
        return [(start, start + self.max_tokens) for start in starts]

    def _run(self, step: Any, rows: Sequence[np.ndarray], **arrays: np.ndarray) -> list[Any]:
        """A step's outputs for rows of ids (special ones are added), in the rows' order.

        Args:
          step: from `_step`.
          rows: int [tokens] each.
          arrays: [rows, ...], given to the step with the rows.
        """
        if not rows:
            return []
        special = self.pretrained.tokenizer.special_ids
        features = Features(
            input_ids=[np.array([special.cls, *row, special.sep], np.int32) for row in rows],
            targets=arrays,
            token_targets={},
            example=np.arange(len(rows)),
            special_ids=special,
            max_length=self._lengths[-1],
            counts={},
        )
        batches = EvaluationBatches(
            features, batch_size=self._size_of(len(rows)), lengths=self._lengths
        )
        outputs = [
            step(self._placed.params, batches.batch_at(i)) for i in range(batches.num_batches)
        ]
        return batches.restore(jax.device_get(outputs))

    def _size_of(self, count: int) -> int:
        """Rows of a batch that holds so many: a power of two of them, few shapes to compile."""
        size = self._placed.mesh.size
        while size < count:
            size *= 2
        return min(size, self._placed.batch_size)
