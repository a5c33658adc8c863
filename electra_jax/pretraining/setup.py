"""The parts of a pre-training run, from its config."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform as platform_module
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from electra_jax import parallel, run_config
from electra_jax.data import (
    Corpus,
    CurriculumBatches,
    TokenBatches,
    documentation_corpus,
)
from electra_jax.data.tokenization import continues_word
from electra_jax.errors import UserError
from electra_jax.modeling import Electra
from electra_jax.objectives import OBJECTIVES, PretrainingObjective
from electra_jax.optimizer import learning_rate_schedule, make_optimizer
from electra_jax.pretrained import load_pretrained
from electra_jax.run_directory import open_devices, say
from electra_jax.train_state import TrainState, create_train_state, init_params
from electra_jax.warm_start import generator_params, start_params

# Whose versions are kept with a run: results may depend on them in the last digits.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run, built and checked; nothing of it is compiled or on disk yet."""

    mesh: Any
    model: Electra
    objective: PretrainingObjective
    schedule: Callable[[int], Any]
    tx: optax.GradientTransformation
    corpus: Corpus
    batches: CurriculumBatches
    held_out: TokenBatches
    platform: str
    choices: run_config.Choices
    description: dict[str, Any]  # JSON: the resolved config, the corpus, where it runs


def set_up(config: ml_collections.ConfigDict) -> Setup:
    """Builds the parts of a run from its config.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    run_config.check_values(config)
    platform, mesh = open_devices(
        config,
        batch_size=config.train.batch_size,
        num_microbatches=config.train.num_microbatches,
    )
    corpus = open_corpus(config)
    model_config = run_config.model_config(config, platform, vocab_size=corpus.vocab_size)
    run_config.check_corpus(model_config, corpus)
    num_train_steps = config.train.num_train_steps
    is_fixed = "^generator_" in OBJECTIVES[config.objective.name].frozen
    if is_fixed and config.generator_from is None:
        raise UserError(
            f"objective.name={config.objective.name!r} leaves the generator as it is: give "
            "generator_from=DIR, a run with a masked language model"
        )
    if config.generator_from is not None and model_config.sharing not in ("apart", "none"):
        raise UserError(
            f"generator_from={config.generator_from}, but model.sharing={model_config.sharing!r} "
            "gives the generator no tables of its own: set model.sharing=apart, or none"
        )
    batches = training_batches(config, corpus)
    for phase in batches.phases:
        parallel.check_batch_size(phase.batch_size, mesh, config.train.num_microbatches)
    choices = run_config.choices(
        config,
        platform,
        num_devices=mesh.size,
        num_tokens=batches.batches[0].num_tokens,
        device_bytes=parallel.memory_of_a_device(mesh),
    )
    objective = run_config.make_objective(
        config,
        corpus.vocab_size,
        corpus.special_ids,
        rows_at_once=choices.rows_at_once,
        continues_word=(
            continues_word(corpus.tokenizer()) if config.objective.masking == "words" else None
        ),
    )
    return Setup(
        mesh=mesh,
        model=Electra(model_config),
        objective=objective,
        schedule=learning_rate_schedule(
            config.optimizer.learning_rate, config.optimizer.warmup_steps, num_train_steps
        ),
        tx=make_optimizer(
            num_train_steps=num_train_steps,
            frozen=objective.frozen,
            **config.optimizer,
        ),
        corpus=corpus,
        batches=batches,
        held_out=TokenBatches(
            corpus,
            split="validation",
            seq_len=config.data.seq_len,
            batch_size=config.train.batch_size,
            seed=config.seed,
            example_format=config.data.example_format,
            repeat=False,
        ),
        platform=platform,
        choices=choices,
        description={
            "config": config.to_dict()
            | {
                "model": dataclasses.asdict(model_config),
                "objective": {"name": config.objective.name} | run_config.objective_numbers(config),
            },
            "corpus": {"fingerprint": corpus.fingerprint, "path": str(corpus.path)},
            "environment": {
                "devices": parallel.describe_devices(mesh),
                "python": platform_module.python_version(),
                **{name: importlib.metadata.version(name) for name in _LIBRARIES},
            },
        },
    )


def batch_for(setup: Setup, step: int) -> dict[str, np.ndarray]:
    """What the training step is given: this process's rows of the batch of a step, or where a
    device that has the corpus finds them.
    """
    batches = setup.batches
    rows = parallel.local_rows(batches.phases[batches.phase_at(step)].batch_size)
    if setup.choices.on_device:
        return batches.batches[0].places_at(step, rows)
    return batches.batch_at(step, rows)


def open_corpus(config: ml_collections.ConfigDict) -> Corpus:
    """The corpus at `data.path`, or the default one where there is no path."""
    if config.data.path is not None:
        return Corpus.open(config.data.path)
    say(
        "No data.path: using the default corpus, the English documentation that comes with this "
        "Python and its packages."
    )
    return documentation_corpus(config.data.default_vocab_size, progress=say)


def training_batches(config: ml_collections.ConfigDict, corpus: Corpus) -> CurriculumBatches:
    """Endless and shuffled: of `data.seq_len` first, then as `data.phases` say."""
    return CurriculumBatches(
        corpus,
        [(0, config.data.seq_len, config.train.batch_size), *config.data.phases],
        seed=config.seed,
        example_format=config.data.example_format,
    )


def warm_params(config: ml_collections.ConfigDict, setup: Setup) -> Any:
    """The parameters of `init_from` and `generator_from`, and drawn ones where they have none.

    Says what is drawn.

    Raises:
      UserError: if there is no model, or it does not fit the one to train or its corpus.
    """
    # Scanned layers have the same parameters and compile faster.
    model = Electra(dataclasses.replace(setup.model.config, scan_layers=True))
    init_key, _ = jax.random.split(jax.random.key(config.seed))
    fresh = init_params(init_key, model=model, seq_len=8)
    params, tokenizer = fresh, setup.corpus.tokenizer()
    if config.init_from is not None:
        pretrained = load_pretrained(config.init_from, what="init_from")
        params, notes = start_params(
            pretrained,
            setup.model.config,
            fresh,
            tokenizer,
            given=config.generator_from is not None,
        )
        say("\n".join([f"Starting from {config.init_from}.", *notes]))
    if config.generator_from is not None:
        pretrained = load_pretrained(config.generator_from, what="generator_from")
        params = params | generator_params(pretrained, setup.model.config, fresh, tokenizer)
        say(f"The generator is that of {config.generator_from}.")
    return jax.tree.map(np.asarray, params)


def fresh_state(config: ml_collections.ConfigDict, setup: Setup) -> TrainState:
    """The state at step 0 that the seed gives."""
    key = jax.random.key(config.seed)
    return create_train_state(key, setup.model, setup.tx, seq_len=config.data.seq_len)


def flops_of(setup: Setup, step: int) -> float | None:
    """Matrix-product operations of the update of a step."""
    phase = setup.batches.phases[setup.batches.phase_at(step)]
    return setup.objective.flops(
        setup.model.config, batch_size=phase.batch_size, seq_len=phase.seq_len
    )


def describe(config: ml_collections.ConfigDict, setup: Setup, state: TrainState, start: int) -> str:
    """What is about to run, in a few lines."""
    corpus, train, batches = setup.corpus, config.train, setup.batches
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    tokens = batches.num_tokens(train.num_train_steps)
    epochs = batches.num_epochs(train.num_train_steps)
    model = setup.model.config
    layers = "scanned" if model.scan_layers else "unrolled"
    lines = [
        f"{config.name}: {parameters:,} parameters, {model.dtype}, layers {layers}, "
        f"attention {run_config.describe_attention(model, setup.platform)}, "
        f"{parallel.describe_devices(setup.mesh)}, {config.parallel.backend}, "
        f"{setup.choices.steps_per_call} steps a call, corpus on the "
        f"{'device' if setup.choices.on_device else 'host'}",
        f"corpus: {corpus.num_tokens('train'):,} tokens in {corpus.num_documents('train'):,} "
        f"documents, {corpus.num_documents('validation'):,} documents held out ({corpus.path})",
        f"steps: {train.num_train_steps:,} of {train.batch_size} x {config.data.seq_len} tokens "
        + "".join(
            f"({phase.batch_size} x {phase.seq_len} from step {phase.first_step:,}) "
            for phase in batches.phases[1:]
        )
        + f"= {tokens:,}, {epochs:.1f} times the corpus",
    ]
    if config.optimizer.warmup_steps >= train.num_train_steps:
        lines.append(
            f"note: optimizer.warmup_steps={config.optimizer.warmup_steps} is not below "
            f"train.num_train_steps={train.num_train_steps}: the rate stays far under its peak"
        )
    if start:
        lines.append(f"resuming at step {start:,}")
    return "\n".join(lines)
