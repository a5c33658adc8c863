"""A small corpus of generated text, and a command line that trains on it in a second."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
NUM_STEPS = 60


def generated_text(num_documents: int, seed: int) -> str:
    """Documents of sentences in which each word suggests the next one."""
    rng = np.random.default_rng(seed)
    words = [a + b + c for a in "bdklmst" for b in "aeiou" for c in ("", "n", "ra")]
    documents = []
    for _ in range(num_documents):
        lines = []
        for _ in range(rng.integers(3, 9)):
            start, length = rng.integers(len(words)), rng.integers(5, 20)
            steps = rng.integers(1, 4, length).cumsum()
            sentence = " ".join(words[(start + step) % len(words)] for step in steps)
            lines.append(sentence.capitalize() + ".")
        documents.append("\n".join(lines))
    return "\n\n".join(documents) + "\n"


SMALL_RUN = {
    "model.hidden_size": 32,
    "model.num_heads": 2,
    "model.embedding_size": 16,
    "model.num_layers": 1,
    "data.seq_len": 16,
    "train.batch_size": 8,
    "train.log_every": 3,
    "train.eval_every": 10,
    "train.eval_batches": 2,
    "train.checkpoint_every": 5,
    "logging.tensorboard": False,
}


# What makes a documented training one of seconds.
SHORTENED = (
    " --config.train.num_train_steps=2 --config.train.batch_size=2 --config.data.seq_len=16"
    " --config.model.num_layers=1 --config.train.eval_batches=1"
)


def command(corpus_path, workdir, **overrides) -> list[str]:
    """`python train.py` on a run of seconds; overrides are config fields, with __ for a dot."""
    fields = SMALL_RUN | {"data.path": corpus_path}
    fields |= {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        sys.executable,
        str(ROOT / "train.py"),
        f"--config={ROOT / 'configs' / 'tiny.py'}",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def environment() -> dict[str, str]:
    """One device, as most users have; the tests' compilation cache."""
    import jax

    variables = dict(os.environ, JAX_PLATFORMS="cpu")
    variables.pop("JAX_NUM_CPU_DEVICES", None)
    variables["XLA_FLAGS"] = "--xla_backend_optimization_level=1"
    if jax.config.jax_compilation_cache_dir:
        variables["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    return variables


def run(arguments: list[str], **kwargs) -> subprocess.CompletedProcess:
    """Runs a program to its end, its output as text."""
    kwargs = dict(capture_output=True, text=True, env=environment(), timeout=300) | kwargs
    return subprocess.run(arguments, **kwargs)


def free_port() -> int:
    """A port of this machine's that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
