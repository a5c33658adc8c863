"""Models between directories: ours to Hugging Face's and back."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from electra_jax.checkpoint import save_params
from electra_jax.config import ElectraConfig
from electra_jax.errors import UserError
from electra_jax.hugging_face import to_hugging_face
from electra_jax.hugging_face.model_card import model_card
from electra_jax.hugging_face.modernbert import (
    modernbert_config,
    to_modernbert,
    why_not_modernbert,
)
from electra_jax.hugging_face.writing import (
    in_units_of,
    their_config,
    with_hidden_layer,
    write_hugging_face,
)
from electra_jax.pretrained import Pretrained, load_pretrained
from electra_jax.run_directory import read_json, say
from electra_jax.tensorflow_checkpoint import load_tensorflow_checkpoint
from electra_jax.writers import read_rows

_PRETRAINING = {
    "bert": {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"},
    "modern": {
        "discriminator": "ModernBertForTokenClassification",
        "generator": "ModernBertForMaskedLM",
    },
}
# Their class and `problem_type` by the kind of a fine-tuned model's outputs.
_FINE_TUNED = {
    "classification": ("ElectraForSequenceClassification", "single_label_classification"),
    "multilabel": ("ElectraForSequenceClassification", "multi_label_classification"),
    "regression": ("ElectraForSequenceClassification", "regression"),
    "tagging": ("ElectraForTokenClassification", None),
    "span": ("ElectraForQuestionAnswering", None),
}


def to_hugging_face_directory(run: Path | str, output: Path | str) -> list[Path]:
    """Writes a run's newest checkpoint as Hugging Face's directories.

    Of pre-training `output/discriminator` and `output/generator`, as far as the run has them; of a
    fine-tuned model `output` itself.

    Args:
      run: a run of `train.py`, what `finetune.py` has left, or any directory with a model.
      output: a directory that does not exist yet; it appears when it is complete.

    Returns:
      The directories, one a model.

    Raises:
      UserError: if there is no model, `output` exists, or no class of theirs computes what the
        model does.
    """
    run, output = Path(run), Path(output)
    if output.exists():
        raise UserError(f"{output} exists: choose another directory, or remove it")
    pretrained = load_pretrained(run, what="run")
    models: dict[str, tuple[str, Any, dict[str, Any]]] = {}
    is_modern = pretrained.config.architecture == "modern"
    if "space" in pretrained.metadata:
        if is_modern:
            raise UserError(
                f"{run} is fine-tuned and has model.architecture='modern': its head has no "
                "counterpart in Hugging Face's classes; export the pre-trained run"
            )
        models["."] = _fine_tuned(pretrained)
    else:
        for name, architecture in _PRETRAINING[pretrained.config.architecture].items():
            if f"{name}_head" not in pretrained.params:
                continue
            problem = _why_not(pretrained.config, architecture)
            if problem:
                say(f"The {name} is left out: {problem}.")
            else:
                models[name] = architecture, pretrained.params, {}
    if not models:
        raise UserError(f"{run} has no head of a discriminator or a generator: nothing to export")
    rows, results = run / "metrics.jsonl", run / "results.json"
    about = {
        "metadata": pretrained.metadata,
        "tokenizer_settings": pretrained.tokenizer.settings,
        "rows": read_rows(rows) if rows.exists() else (),
        "results": read_json(results) if results.exists() else None,
        "has_curves": (run / "curves.png").exists(),
    }
    special_ids = pretrained.tokenizer.special_ids

    def write(aside: Path) -> None:
        for name, (architecture, params, labels) in models.items():
            if is_modern:
                tensors = to_modernbert(params, architecture)
                config = modernbert_config(pretrained.config, architecture, special_ids=special_ids)
            else:
                tensors = to_hugging_face(params, architecture)
                config = their_config(
                    pretrained.config, architecture, pad_id=special_ids.pad, **labels
                )
            card = model_card(
                architecture, config, name=f"{output.name}/{name}".strip("/."), **about
            )
            write_hugging_face(aside / name, tensors, config, pretrained.tokenizer, card)
            if about["has_curves"]:
                shutil.copyfile(run / "curves.png", aside / name / "curves.png")

    _write_aside(output, write)
    return [output / name for name in models]


def from_hugging_face_directory(source: Path | str, output: Path | str) -> Path:
    """Writes a model of Hugging Face's as a checkpoint of ours, at step 0.

    Args:
      source: a directory with one model, or with `discriminator/` and `generator/`.
      output: a directory that does not exist yet; it appears when it is complete.

    Returns:
      `output`.

    Raises:
      UserError: if `source` is no such model, or `output` exists.
    """
    return _save(lambda: load_pretrained(source, what="source"), Path(output))


def from_tensorflow_checkpoint(
    source: Path | str,
    output: Path | str,
    *,
    vocab: Path | str | None = None,
    lowercase: bool = True,
) -> Path:
    """Writes a checkpoint of the original code's as one of ours, at step 0.

    Args:
      source, vocab, lowercase: as of `load_tensorflow_checkpoint`.
      output: as of `from_hugging_face_directory`.

    Returns:
      `output`.

    Raises:
      UserError: as `load_tensorflow_checkpoint`, and if `output` exists.
    """
    load = functools.partial(load_tensorflow_checkpoint, source, vocab=vocab, lowercase=lowercase)
    return _save(load, Path(output))


def _save(load: Callable[[], Pretrained], output: Path) -> Path:
    if output.exists():
        raise UserError(f"{output} exists: choose another directory, or remove it")
    model = load()
    metadata = model.metadata | {"config": {"model": dataclasses.asdict(model.config)}}

    def write(aside: Path) -> None:
        save_params(aside, 0, model.params, metadata)
        (aside / "tokenizer").mkdir()
        model.tokenizer.save(aside / "tokenizer")

    _write_aside(output, write)
    return output


def _why_not(config: ElectraConfig, architecture: str) -> str | None:
    """Why a class of theirs has no place for a network; None: it has."""
    if config.architecture == "modern":
        return why_not_modernbert(config, architecture)
    if architecture == "ElectraForMaskedLM" and config.generator_kind != "masked":
        return "two towers have no counterpart in Hugging Face's classes"
    return None


def _fine_tuned(pretrained: Pretrained) -> tuple[str, Any, dict[str, Any]]:
    """Class, parameters, and what config.json says of labels."""
    space, head = pretrained.metadata["space"], pretrained.metadata["head"]
    architecture, problem_type = _FINE_TUNED[space["kind"]]
    params = pretrained.params
    if space["kind"] == "span":
        if head["joint"] or head["answerability"]:
            raise UserError(
                "a joint head of question answering has no counterpart in Hugging Face's classes: "
                "fine-tune with --config.model.joint_spans=False --config.model.answerability=False"
            )
        return architecture, params, {}
    if space["kind"] == "regression":
        params = in_units_of(params, *space["score_range"])
    if architecture == "ElectraForSequenceClassification" and not head["hidden_layer"]:
        params = with_hidden_layer(params)
    labels = tuple(space["labels"]) or ("score",)
    return architecture, params, {"labels": labels, "problem_type": problem_type}


def _write_aside(output: Path, write: Callable[[Path], None]) -> None:
    """Writes a directory under another name, then renames it: it is whole or not there."""
    aside = output.with_name(f"{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        aside.mkdir(parents=True)
        write(aside)
        aside.rename(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}): choose another") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
