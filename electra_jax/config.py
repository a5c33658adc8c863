"""What the networks are: their sizes, as frozen dataclasses. No learning rates, no paths."""

from __future__ import annotations

import dataclasses
from typing import cast

from electra_jax.errors import UserError

SHARING_MODES = ("embeddings", "none", "all", "apart", "disentangled")
GENERATORS = ("masked", "two_towers", "none")
EXTRA_HEADS = ("none", "tokens", "baseline")
DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("xla", "cudnn")
ARCHITECTURES = ("bert", "modern")
REMATS = ("none", "products", "layers")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Numbers of one Transformer encoder (the generator's or the discriminator's)."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int


@dataclasses.dataclass(frozen=True)
class ElectraConfig:
    """The architecture of a generator and a discriminator.

    The discriminator has `num_layers`, `hidden_size` and `num_heads`; the generator's numbers
    are derived from them (`generator`). Sizes: Clark et al. 2020, Table 6.

    Attributes:
      architecture: "bert" (the paper's), or "modern" (Warner et al. 2024, ModernBERT): normalised
        before instead of after, rotary positions, a gated feed-forward layer, no biases, and
        attention that is local in most layers; see `modern`.
      vocab_size: rows of the word embedding table.
      embedding_size: width of the embeddings; where it differs from a hidden size, a linear
        projection follows them.
      intermediate_size: width of the feed-forward layer; None means 4 * hidden_size, of "modern",
        whose layer has three matrices instead of two, 8/3 of it.
      generator_size: the generator's width as a fraction of the discriminator's.
      generator_depth: the generator's number of layers as a fraction of the discriminator's.
      sharing: what the networks share. "embeddings" (word, position and type tables with their
        LayerNorm; the default), "none" (the generator has tables of its own width), "all"
        (generator and discriminator are one encoder of the full size; only the heads differ),
        "disentangled" (the discriminator's word and position tables are the generator's, through
        which it sends no gradient, and differences of its own: He et al. 2021, section 3.2) or
        "apart" (tables of its own, as wide as the discriminator's: what "disentangled" is once the
        differences are added, `embedding_sharing.add_differences`).
      generator_kind: "masked" (it reads text with [MASK] in it), "two_towers" (two encoders of the
        generator's size, one reading up to the token before a position and one from the token after
        it: Clark et al. 2020b, section 2.3) or "none".
      extra_head: what some objectives need: "tokens" (a head of the encoder that predicts tokens),
        "baseline" (one number a position from the generator) or "none".
      max_positions: rows of the position table, whatever length is trained on; of "modern", which
        has no such table, the longest row that it is given.
      local_window: of "modern": a local layer looks at half so many positions to each side.
      global_every: of "modern": every so many layers, from the first, one looks everywhere.
      rope_theta_global, rope_theta_local: of "modern": base of the rotations' wave lengths.
      dropout_rate: on embeddings, attention output and feed-forward output.
      attention_dropout_rate: on attention probabilities.
      dtype: of activations and matrix products, "float32" or "bfloat16". Parameters, softmax,
        LayerNorm statistics and losses are float32 always.
      scan_layers: loop over the layers in the compiled program (compiles faster, saves memory)
        instead of writing them out (runs faster). Same parameters either way.
      stacked_layers: every tensor of the layers is stored once, stacked [N, ...]. Without it each
        layer has its own, as `layers.unstack_layers` makes of them: for inference on CPU, where
        every call would copy the slices. Not with `scan_layers`.
      attention: what computes it: "xla", the compiler's own code, or "cudnn", NVIDIA's flash
        kernel, which needs bfloat16 and no dropout of the attention probabilities, and rows whose
        padding follows their tokens.
      remat: what the backward pass computes again instead of finding it in memory: "none",
        "products" (all but matrix products with weights), "layers" (everything inside a layer).
      rows_apart: attention computes long rows one after another, so that a row's scores stay in the
        cache: for inference on one CPU. Over several devices it would gather their rows.
      vocab_pad_multiple: the vocabulary dimension of the matrix product in the generator's head
        is padded to a multiple of this; parameters, samples and losses are not changed by it.

    Raises:
      UserError: for an impossible combination, naming the field.
    """

    architecture: str = "bert"
    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 256
    num_layers: int = 12
    num_heads: int = 4
    intermediate_size: int | None = None
    generator_size: float = 0.25
    generator_depth: float = 1.0
    sharing: str = "embeddings"
    generator_kind: str = "masked"
    extra_head: str = "none"
    max_positions: int = 512
    local_window: int = 128
    global_every: int = 3
    rope_theta_global: float = 160_000.0
    rope_theta_local: float = 10_000.0
    type_vocab_size: int = 2
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-12
    init_stddev: float = 0.02
    dtype: str = "float32"
    scan_layers: bool = False
    stacked_layers: bool = True
    attention: str = "xla"
    remat: str = "none"
    rows_apart: bool = False
    vocab_pad_multiple: int = 128

    def __post_init__(self):
        if self.intermediate_size is None:
            wide = 4 * self.hidden_size
            if self.architecture == "modern":
                wide = 8 * round(self.hidden_size / 3)
            object.__setattr__(self, "intermediate_size", wide)
        counts = (
            "vocab_size embedding_size hidden_size num_layers num_heads intermediate_size "
            "max_positions type_vocab_size vocab_pad_multiple local_window global_every"
        ).split()
        for name in counts:
            if not isinstance(getattr(self, name), int):
                raise UserError(f"model.{name}={getattr(self, name)!r} must be a whole number")
        fractions = (
            "generator_size generator_depth layer_norm_epsilon init_stddev rope_theta_global "
            "rope_theta_local"
        ).split()
        for name in counts + fractions:
            if not getattr(self, name) > 0:
                raise UserError(f"model.{name}={getattr(self, name)} must be positive")
        for name in ("dropout_rate", "attention_dropout_rate"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"model.{name}={getattr(self, name)} must be in [0, 1)")
        for name, known in (
            ("architecture", ARCHITECTURES),
            ("sharing", SHARING_MODES),
            ("generator_kind", GENERATORS),
            ("extra_head", EXTRA_HEADS),
            ("dtype", DTYPES),
            ("attention", ATTENTIONS),
            ("remat", REMATS),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"model.{name}={getattr(self, name)!r} is unknown: use one of "
                    + ", ".join(known)
                )
        if self.sharing not in ("embeddings", "none") and self.generator_kind == "two_towers":
            raise UserError(
                f"model.sharing={self.sharing!r} is not possible with two towers: use embeddings, "
                "or none"
            )
        if self.sharing != "embeddings" and self.generator_kind == "none":
            raise UserError(
                f"model.sharing={self.sharing!r}, but there is no generator: use embeddings"
            )
        if self.attention == "cudnn" and self.why_not_cudnn():
            raise UserError(
                f"model.attention='cudnn' is not possible: {self.why_not_cudnn()}: use xla"
            )
        if self.scan_layers and not self.stacked_layers:
            raise UserError(
                "model.scan_layers=True needs model.stacked_layers=True: turn one of them round"
            )
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"model.num_heads={self.num_heads} does not divide "
                f"model.hidden_size={self.hidden_size}: choose a number of heads that does"
            )
        if self.generator.hidden_size % self.generator.num_heads:
            raise UserError(
                f"model.generator_size={self.generator_size} gives a generator of width "
                f"{self.generator.hidden_size}, which its {self.generator.num_heads} heads do not "
                "divide: choose another fraction"
            )
        for sizes in (self.discriminator, self.generator):
            if self.architecture == "modern" and sizes.hidden_size // sizes.num_heads % 2:
                raise UserError(
                    f"model.architecture='modern' turns pairs of numbers, but a head is "
                    f"{sizes.hidden_size // sizes.num_heads} wide: choose widths and heads that "
                    "give an even number"
                )

    @property
    def discriminator(self) -> EncoderConfig:
        """The discriminator's numbers."""
        intermediate_size = cast(int, self.intermediate_size)
        return EncoderConfig(self.num_layers, self.hidden_size, self.num_heads, intermediate_size)

    @property
    def generator(self) -> EncoderConfig:
        """The generator's numbers; its heads are as wide as the discriminator's.

        Source: `get_generator_config` of the original code, where every head has 64 units.
        """
        if self.sharing == "all":
            return self.discriminator
        hidden_size = max(1, round(self.hidden_size * self.generator_size))
        return EncoderConfig(
            num_layers=max(1, round(self.num_layers * self.generator_depth)),
            hidden_size=hidden_size,
            num_heads=max(1, hidden_size // (self.hidden_size // self.num_heads)),
            intermediate_size=round(
                cast(int, self.intermediate_size) * hidden_size / self.hidden_size
            ),
        )

    @property
    def biases(self) -> bool:
        """Whether matrix products and normalisations have biases."""
        return self.architecture == "bert"

    @property
    def generator_embedding_size(self) -> int:
        """Width of the tables that the generator reads."""
        return self.generator.hidden_size if self.sharing == "none" else self.embedding_size

    def why_not_cudnn(self) -> str | None:
        """What of this architecture cuDNN's flash kernel cannot do; None: nothing."""
        if self.dtype != "bfloat16":
            return f"it computes in bfloat16, not in {self.dtype}"
        if self.attention_dropout_rate:
            return f"it has no dropout (model.attention_dropout_rate={self.attention_dropout_rate})"
        if self.architecture == "modern":
            return "its mask is padding alone, and local layers look at a window"
        if self.generator_kind == "two_towers":
            return "its mask is padding alone, and the generator's two towers look one way each"
        for sizes in (self.discriminator, self.generator):
            width = sizes.hidden_size // sizes.num_heads
            if width % 8 or width > 128:
                return f"heads are {width} wide: it takes multiples of 8 up to 128"
        return None

    @property
    def padded_vocab_size(self) -> int:
        """`vocab_size` rounded up to a multiple of `vocab_pad_multiple`."""
        multiple = self.vocab_pad_multiple
        return -(-self.vocab_size // multiple) * multiple

    @classmethod
    def small(cls, **overrides) -> ElectraConfig:
        """ELECTRA-Small of the paper: 14.2 M parameters, of which the encoder has 13.5 M."""
        return cls(**overrides)

    @classmethod
    def small_plus_plus(cls, **overrides) -> ElectraConfig:
        """The released ELECTRA-Small: the generator is as wide as the discriminator."""
        return cls(**dict(generator_size=1.0) | overrides)

    @classmethod
    def base(cls, **overrides) -> ElectraConfig:
        """ELECTRA-Base: an encoder of 109 M parameters."""
        sizes = dict(embedding_size=768, hidden_size=768, num_heads=12, generator_size=1 / 3)
        return cls(**sizes | overrides)

    @classmethod
    def large(cls, **overrides) -> ElectraConfig:
        """ELECTRA-Large: an encoder of 334 M parameters."""
        sizes = dict(embedding_size=1024, hidden_size=1024, num_layers=24, num_heads=16)
        return cls(**sizes | overrides)
