"""The stages of a build in their order: what is missing is done, and then it is a corpus."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
from typing import Any, Protocol

from electra_jax.data import storage, tokenization
from electra_jax.data.build import stages
from electra_jax.data.build.layout import lay_out
from electra_jax.data.build.parts import (
    check_complete,
    group_by_job,
    list_parts,
    read_state,
    whole_beginning,
)
from electra_jax.data.build.runners import Runner
from electra_jax.data.build.stages import Job, Progress, Recipe
from electra_jax.data.corpus import Corpus, save_tokenizer, write_metadata
from electra_jax.data.tokenization import Tokenizer
from electra_jax.errors import UserError


class Display(Protocol):
    """Whoever wants to know how far a build is; `build.progress` has one for a terminal."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins, of `total` bytes of input or, for the last one, tokens."""

    def report(self, progress: Progress) -> None:
        """Something of it has been done."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        pass

    def report(self, progress: Progress) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def trained_tokenizer(
    training: dict[str, Any], jobs: list[Job], recipe: Recipe, run: Runner, display: Display
) -> Tokenizer:
    """The tokenizer trained on a sample of the inputs, or an earlier run's."""
    directory, done = recipe.directory, f"{recipe.directory}/{stages.SAMPLE}/done"
    if storage.exists(done):
        return stages.load_stored_tokenizer(directory)
    display.begin("reading a sample", sum(unit.size for job in jobs for unit in job.units))
    sampled = set(storage.list_names(f"{directory}/{stages.SAMPLE}"))
    missing = [job for job in jobs if stages.sample_name(job) not in sampled]
    run(functools.partial(stages.sample_texts, recipe=recipe), missing, display.report)
    if next(stages.sampled_texts(directory, jobs, math.inf), None) is None:
        raise UserError(
            f"tokenizer_sample_mb={training['tokenizer_sample_mb']} selects no text of the inputs: "
            "raise it, or check the inputs"
        )
    display.begin("training the tokenizer", 0)
    tokenizer = tokenization.train_tokenizer(
        training["train_tokenizer"],
        stages.sampled_texts(directory, jobs, 1.25e6 * training["tokenizer_sample_mb"]),
        training["vocab_size"],
        training["lowercase"],
        training["strip_accents"],
    )
    save_tokenizer(tokenizer, f"{directory}/{stages.TOKENIZER}")
    storage.write_bytes(done, b"")
    return tokenizer


def with_tokenizer(recipe: Recipe, tokenizer: Tokenizer) -> Recipe:
    """Saves the tokenizer where the workers look for it."""
    files = save_tokenizer(tokenizer, f"{recipe.directory}/{stages.TOKENIZER}")
    return dataclasses.replace(recipe, tokenizer=json.dumps(files, sort_keys=True))


def encode_jobs(jobs: list[Job], recipe: Recipe, run: Runner, display: Display) -> None:
    """Makes every part that is missing."""
    display.begin("encoding", sum(unit.size for job in jobs for unit in job.units))
    by_job = group_by_job(list_parts(recipe.directory))
    missing = []
    for job in jobs:
        found = by_job.get(job.index, [])
        finished = whole_beginning(found)
        for part in found[len(finished) :]:  # One before it has gone, so it is made anew.
            storage.remove_file(part.path(recipe.directory))
        if finished and finished[-1].is_last:
            display.report(Progress(source_bytes=sum(unit.size for unit in job.units)))
        else:
            missing.append(job._replace(finished=tuple(finished)))
    run(functools.partial(stages.encode, recipe=recipe), missing, display.report)


def finish(
    output: str,
    recipe: Recipe,
    tokenizer: Tokenizer,
    settings: dict[str, Any],
    num_jobs: int,
    run: Runner,
    display: Display,
) -> Corpus:
    """Makes the corpus of all parts of all jobs and removes the work in progress."""
    directory = recipe.directory
    parts = list_parts(directory)
    check_complete(parts, num_jobs)
    display.begin("laying out", 0)
    layout = lay_out(
        directory,
        parts,
        validation_fraction=settings["validation_fraction"],
        shard_tokens=settings["shard_tokens"],
        keep_duplicates=settings["keep_duplicates"],
    )
    met = collections.Counter()
    for part in parts:
        if part.is_last:
            met.update(read_state(directory, part))
    documents = collections.Counter()
    for plan in layout.shards:
        documents[plan.split] += plan.num_documents
    if not documents["train"]:
        storage.remove_tree(directory)
        counted = met | {"validation_documents": documents["validation"]}
        causes = [
            f"{count:,} {name.replace('_', ' ')}"
            for name, count in counted.items()
            if count and name not in ("read", "text_bytes")
        ]
        raise UserError(
            f"no document is left to train on ({', '.join(causes) or 'the inputs are empty'}): "
            "check the inputs and what leaves documents out"
        )
    num_tokens = sum(plan.num_tokens for plan in layout.shards)
    display.begin("writing shards", num_tokens)
    entries = set(storage.list_names(f"{directory}/{stages.SHARDS}"))
    missing = [plan for plan in layout.shards if f"{plan.name}.json" not in entries]
    write = functools.partial(
        stages.write_planned_shard, recipe=recipe, held=layout.held, output=output
    )
    run(write, missing, display.report)
    summary = {
        "documents": documents.total(),
        "validation_documents": documents["validation"],
        "duplicates": layout.duplicates,
        "sentences": sum(plan.num_sentences for plan in layout.shards),
        "tokens": num_tokens,
        "unknown_rate": layout.unknown / max(1, num_tokens),
        **{name: count for name, count in met.items() if name != "read"},
    }
    storage.remove_unfinished(output)
    metadata = write_metadata(
        output,
        tokenizer,
        [stages.shard_entry(directory, plan) for plan in layout.shards],
        settings=settings,
        summary=summary,
    )
    storage.remove_tree(directory)
    return Corpus(output, metadata)
