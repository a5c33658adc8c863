"""What all trials of a run share: data, pretrained model, network and objective."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from electra_jax.errors import UserError
from electra_jax.finetuning import config as finetune_config
from electra_jax.heads import FineTuned
from electra_jax.objectives import FINETUNING_OBJECTIVES, FineTuningObjective
from electra_jax.pretrained import Pretrained, fingerprint, load_pretrained
from electra_jax.run_directory import open_devices
from electra_jax.tasks import (
    TASKS,
    EvaluationBatches,
    Features,
    LabelSpace,
    Split,
    Task,
    has_split,
    load_task,
    make_features,
    read_split,
)
from electra_jax.tasks.outputs import submission_problem


@dataclasses.dataclass(frozen=True)
class EvaluatedSplit:
    """A split to predict: its examples, their rows and batches."""

    task: Task
    split: Split
    features: Features
    batches: EvaluationBatches


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all trials of a run share, built and checked; nothing is compiled or on disk yet."""

    mesh: Any
    task: Task
    space: LabelSpace
    pretrained: Pretrained
    model: FineTuned
    objective: FineTuningObjective
    train: Features
    dev: dict[str, EvaluatedSplit]
    test: dict[str, EvaluatedSplit]
    notes: list[str]
    fingerprint: str


def set_up(config: ml_collections.ConfigDict) -> Setup:
    """Builds the parts of a run from its config.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    finetune_config.check_values(config)
    platform, mesh = open_devices(config, batch_size=config.batch_size)
    task = finetune_config.make_task(config)
    how = {"bad_rows": config.data.bad_rows, "tfds_data_dir": config.data.tfds_data_dir}
    data = load_task(
        task,
        config.data_dir,
        dev_share=config.data.dev_share,
        train_rows=config.data.train_rows,
        **how,
    )
    pretrained = load_pretrained(config.pretrained)
    encoder = finetune_config.encoder_config(config, pretrained.config, platform)
    if (config.data.max_length or task.max_length) > encoder.max_positions:
        raise UserError(
            f"data.max_length={config.data.max_length or task.max_length} is longer than the "
            f"{encoder.max_positions} positions of {config.pretrained}: shorten it"
        )

    def features_of(split: Split, **kwargs) -> Features:
        return make_features(
            task,
            split.examples,
            pretrained.tokenizer,
            data.space,
            max_length=config.data.max_length,
            stride=config.data.stride,
            max_question_length=config.data.max_question_length,
            **kwargs,
        )

    def evaluated(of_task: Task, split: Split) -> EvaluatedSplit:
        features = features_of(split)
        batches = EvaluationBatches(
            features, batch_size=config.batch_size, num_lengths=config.data.num_lengths
        )
        return EvaluatedSplit(of_task, split, features, batches)

    tests = {}
    if config.train.predict_test:
        scored = [task, *(other for other in TASKS.values() if other.scored_with == task.name)]
        for of_task in scored:
            for name in of_task.test_splits:
                if has_split(of_task, config.data_dir, name):
                    split = read_split(
                        of_task, config.data_dir, name, labels=data.space.labels, **how
                    )
                    key = name if of_task is task else of_task.name
                    tests[key] = evaluated(of_task, split)
    splits = {"train": data.train} | data.dev
    splits |= {name: test.split for name, test in tests.items()}
    train = features_of(data.train, training=True, double_unordered=config.data.double_unordered)
    dev = {name: evaluated(task, split) for name, split in data.dev.items()}
    return Setup(
        mesh=mesh,
        task=task,
        space=data.space,
        pretrained=pretrained,
        model=FineTuned(encoder, finetune_config.make_head(config, data.space)),
        objective=FINETUNING_OBJECTIVES[task.kind](
            pretrained.tokenizer.special_ids,
            **finetune_config.objective_numbers(config, task.kind),
        ),
        train=train,
        dev=dev,
        test=tests,
        notes=[f"{name}: {line}" for name, split in splits.items() for line in split.counts.lines()]
        + [
            f"{name} is not there: a share of train is evaluated"
            if name in data.dev
            else f"{name} is not there: not evaluated"
            for name in data.absent
        ]
        + [f"train: {line}" for line in train.lines()]
        + [
            f"{name}: {line}"
            for name, evaluated_split in (dev | tests).items()
            for line in evaluated_split.features.lines()
        ]
        + _submission_notes(tests),
        fingerprint=_fingerprint(pretrained, data.train, data.dev),
    )


def _submission_notes(tests: Mapping[str, EvaluatedSplit]) -> list[str]:
    """Why a test split gets no file for GLUE's leaderboard, where it has one."""
    notes = []
    for name, test in tests.items():
        if test.task.splits[test.split.name].submission:
            problem = submission_problem(test.task, test.split.name, test.split.examples)
            notes += [f"{name}: no file for GLUE's leaderboard: {problem}"] if problem else []
    return notes


def _fingerprint(pretrained: Pretrained, train: Split, dev: Mapping[str, Split]) -> str:
    digest = hashlib.sha256(fingerprint(pretrained).encode())
    for split in (train, *dev.values()):
        for example in split.examples:
            digest.update(repr(tuple(example)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
