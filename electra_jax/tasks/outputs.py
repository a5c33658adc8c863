"""Files of predictions: GLUE's submissions, SQuAD's three JSON files, and JSON lines of all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data import storage
from electra_jax.errors import UserError
from electra_jax.tasks.decoding import LabelPredictions, LabelSetPredictions, NumberPredictions
from electra_jax.tasks.examples import Example, TextExample
from electra_jax.tasks.kinds import Predictions, best_texts, null_odds
from electra_jax.tasks.question_decoding import QuestionPrediction
from electra_jax.tasks.table import Task

_SIGNIFICANT_DIGITS = 8


def submission_problem(task: Task, split: str, examples: Sequence[TextExample]) -> str | None:
    """Why GLUE would not take a submission for these examples; None if it would.

    Worth saying before training rather than after it: rows that were left out, or a subset.
    """
    wanted = task.splits[split].submission_rows
    if len(examples) != wanted:
        return f"{task.name} {split} has {len(examples):,} rows, and GLUE expects {wanted:,}"
    if [example.id for example in examples] != [str(i) for i in range(wanted)]:
        return f"{task.name} {split} is not numbered from 0 to {wanted - 1:,} in order"
    return None


def write_submission(
    directory: str | Path,
    task: Task,
    split: str,
    examples: Sequence[TextExample],
    predictions: LabelPredictions | NumberPredictions,
) -> str:
    """Writes a file as GLUE's leaderboard wants it: `index` and `prediction`, tab-separated.

    Predictions are the labels of GLUE's own files (0 and 1, or entailment and the like), those of
    STS-B numbers within 0 and 5 with three decimals.

    Args:
      directory: where to.
      task: a task of GLUE.
      split: a test split.
      examples: in the predictions' order.
      predictions: for all of the split.

    Returns:
      The file's name: CoLA.tsv, MNLI-mm.tsv and the like.

    Raises:
      UserError: if the split has no submission file, or the file cannot be written.
    """
    files = task.splits.get(split)
    if files is None or not files.submission:
        raise UserError(f"task {task.name} has no GLUE submission for split {split!r}: use test")
    if isinstance(predictions, NumberPredictions):
        low, high = task.score_range
        values = [f"{value:.3f}" for value in np.clip(predictions.values, low, high).tolist()]
    else:
        values = predictions.labels
    rows = zip((example.id for example in examples), values, strict=True)
    lines = ["index\tprediction", *(f"{identifier}\t{value}" for identifier, value in rows)]
    _write(Path(directory) / files.submission, "\n".join(lines) + "\n")
    return files.submission


def write_predictions(
    path: str | Path, examples: Sequence[Example], predictions: Predictions
) -> None:
    """Writes a JSON object a line for every example, with probabilities where they are known.

    Fields: `id` and `prediction`; `label` where the example has one; `probabilities` by label
    (classification, multilabel); `words` and `probabilities` a word (tagging); `null_odds`,
    `probability` and characters `start` and `end` (span).

    Raises:
      UserError: if the file cannot be written.
    """
    _write(path, _lines(prediction_rows(examples, predictions)))


def prediction_rows(examples: Sequence[Example], predictions: Predictions) -> list[dict[str, Any]]:
    """What `write_predictions` writes, as JSON has it."""
    rows = []
    for i, example in enumerate(examples):
        row: dict[str, Any] = {"id": example.id}
        if isinstance(predictions, list):
            best = predictions[i].answers[0]
            row |= {"question": example.question, "prediction": best.text}
            row |= {"start": best.start, "end": best.end, "probability": _rounded(best.probability)}
            row["null_odds"] = _rounded(predictions[i].null_odds)
            label = list(example.answers) or None
        elif isinstance(predictions, LabelPredictions | LabelSetPredictions):
            row["prediction"] = predictions.labels[i]
            probabilities = map(_rounded, predictions.probabilities[i].tolist())
            row["probabilities"] = dict(zip(predictions.names, probabilities, strict=True))
            label = example.label
        elif isinstance(predictions, NumberPredictions):
            row["prediction"] = _rounded(float(predictions.values[i]))
            label = example.label
        else:
            row |= {"words": example.words, "prediction": predictions.tags[i]}
            if predictions.probabilities is not None:
                row["probabilities"] = list(map(_rounded, predictions.probabilities[i].tolist()))
            label = example.tags
        rows.append(row if label is None else row | {"label": label})
    return rows


def write_answers(
    directory: str | Path,
    predictions: Sequence[QuestionPrediction],
    *,
    null_threshold: float | None = None,
    prefix: str = "",
) -> list[str]:
    """Writes predictions.json, nbest_predictions.json and null_odds.json, as BERT's run_squad does.

    The first and the last are what the official script of SQuAD 2.0 reads.

    Args:
      directory: where to.
      predictions: of all questions.
      null_threshold: questions with larger null odds get the prediction ""; None: none does, and
        the odds decide.
      prefix: of the files' names.

    Returns:
      Names of the files.

    Raises:
      UserError: if a file cannot be written.
    """
    odds = null_odds(predictions)
    texts = best_texts(predictions)
    if null_threshold is not None:
        texts = {key: "" if odds[key] > null_threshold else text for key, text in texts.items()}
    n_best = {
        prediction.id: [
            {
                "text": answer.text,
                "probability": answer.probability,
                "start_logit": answer.start_score,
                "end_logit": answer.end_score,
            }
            for answer in prediction.answers
        ]
        for prediction in predictions
    }
    files = {"predictions": texts, "nbest_predictions": n_best, "null_odds": odds}
    for name, content in files.items():
        text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
        _write(Path(directory) / f"{prefix}{name}.json", text)
    return [f"{prefix}{name}.json" for name in files]


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSON object a line, as of listings of errors.

    Raises:
      UserError: if the file cannot be written.
    """
    _write(path, _lines(rows))


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _rounded(value: float) -> float | None:
    """Without digits that mean nothing; null where JSON has no number."""
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None


def _write(path: str | Path, text: str) -> None:
    try:
        storage.make_directory(str(Path(path).parent))
        storage.write_bytes(str(path), text.encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another") from None
