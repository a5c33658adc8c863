"""What a practitioner would say of a run: rules over its metrics, each a function of a record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from electra_jax.reference_curves import tokens_at
from electra_jax.run_record import RunRecord

# Thresholds. Of runs that go well (ELECTRA-Small on Wikipedia) samples are right about half the
# time, and the area under the curve lies between 0.8 and 0.95.
_RIGHT_SAMPLES = 0.75
_TRIVIAL_AUC = 0.985
_LITTLE_RECALL = 0.01
_CHANCE_AUC = 0.53
_NEAR_ENTROPY = 0.97  # of the entropy of a guess by frequencies alone
_HARD_AUC = 0.7  # docs/experiments.md: ELECTRA with a generator half as wide
_RISE = 1.1  # of the lowest loss
_GAP = 0.3  # nats between training and held-out text
_MANY_EPOCHS = 40
_DUPLICATES = 0.05
_UNKNOWN = 0.01
_UNUSED = 0.5
_PIECES = 2.2  # a word; English with its own vocabulary of 30,522 has 1.2
_WAITING = 0.5


class Finding(NamedTuple):
    """What is wrong.

    Attributes:
      name: of the rule.
      seen: the figures.
      meaning: what they say.
      remedy: what to change.
    """

    name: str
    seen: str
    meaning: str
    remedy: str


def _majority_loss(run: RunRecord) -> float:
    """Loss of a discriminator that gives every token the share of replaced ones."""
    share = run.late("replaced_share")
    if not 0 < share < 1:
        return float("nan")
    return -(share * math.log(share) + (1 - share) * math.log(1 - share))


def _is_past_warmup(run: RunRecord) -> bool:
    last = run.of("train")[-1]["step"]
    return last > 1.5 * run.config["optimizer"]["warmup_steps"]


def unfinished(run: RunRecord) -> Finding | None:
    """The run has not come to its end."""
    last, wanted = run.of("train")[-1]["step"], run.config["train"]["num_train_steps"]
    if last >= wanted:
        return None
    return Finding(
        "unfinished",
        f"{last:,} of {wanted:,} steps are logged.",
        "The run stopped, was stopped, or is still going.",
        "The same command goes on from the last checkpoint.",
    )


def not_finite(run: RunRecord) -> Finding | None:
    """Steps were left out."""
    skipped = int(run.values("skipped_steps").sum())
    if not skipped:
        return None
    return Finding(
        "not finite",
        f"{skipped:,} steps had a loss or gradient that was no number.",
        "The learning rate is too high, or a number overflowed.",
        f"Halve optimizer.learning_rate={run.config['optimizer']['learning_rate']:g}, or warm up "
        "longer (optimizer.warmup_steps).",
    )


def rate_too_high(run: RunRecord) -> Finding | None:
    """The loss rose again and stayed up."""
    loss = run.values("mlm_loss") if len(run.values("mlm_loss")) else run.values("loss")
    if len(loss) < 5:
        return None
    late, lowest = float(loss[-max(1, len(loss) // 5) :].mean()), float(loss.min())
    if late <= _RISE * lowest:
        return None
    return Finding(
        "learning rate too high",
        f"The loss of the language model was {lowest:.2f} and is {late:.2f}.",
        "What was learned has been lost again: the steps are too long.",
        f"Lower optimizer.learning_rate={run.config['optimizer']['learning_rate']:g} by a factor "
        "of 2 to 5, or warm up longer.",
    )


def rate_too_low(run: RunRecord) -> Finding | None:
    """Not even frequencies were learned."""
    late = run.late("mlm_loss")
    size = run.config["model"]["vocab_size"]
    nothing = math.log(size)
    floor = run.corpus.unigram_entropy if run.corpus else 0.75 * nothing
    if not late > floor + 0.5 * (nothing - floor):
        return None
    return Finding(
        "learning rate too low",
        f"The generator's loss is {late:.2f}; guessing among {size:,} tokens gives {nothing:.2f}, "
        f"knowing how often each occurs {floor:.2f}.",
        "Frequencies are learned first and fast: the parameters have hardly moved.",
        f"Raise optimizer.learning_rate={run.config['optimizer']['learning_rate']:g}, or train for "
        f"more steps than {run.of('train')[-1]['step']:,}.",
    )


def generator_too_weak(run: RunRecord) -> Finding | None:
    """Replacements are no better than frequencies, or trivially told."""
    auc, late = run.late("disc_auc"), run.late("mlm_loss")
    if auc > _TRIVIAL_AUC:
        seen = f"The discriminator's area under the curve is {auc:.3f}."
    elif run.corpus and late > _NEAR_ENTROPY * run.corpus.unigram_entropy:
        seen = (
            f"The generator's loss is {late:.2f}, and the entropy of the tokens "
            f"{run.corpus.unigram_entropy:.2f}."
        )
    else:
        return None
    size = run.config["model"]["generator_size"]
    return Finding(
        "generator too weak",
        seen,
        "The generator knows frequencies at most, so replaced tokens are told without context.",
        f"Train longer, or enlarge model.generator_size={size:g} (the paper: 1/4 to 1/2).",
    )


def generator_too_strong(run: RunRecord) -> Finding | None:
    """Hardly anything is replaced."""
    right, share = run.late("sampled_accuracy"), run.late("replaced_share")
    if not right > _RIGHT_SAMPLES:
        return None
    return Finding(
        "generator too strong",
        f"{right:.0%} of the generator's samples are the token that was there: {share:.1%} of all "
        "tokens are replaced.",
        "The discriminator sees few replaced tokens to learn from.",
        _weaker_generator(run),
    )


def replacements_too_hard(run: RunRecord) -> Finding | None:
    """What is replaced can hardly be told from text."""
    if run.config["objective"]["name"] == "electric":
        return None  # it calls right samples noise, too, which nothing can tell
    if math.isnan(run.late("sampled_accuracy")) or not _is_past_warmup(run):
        return None  # no generator, or too early
    auc = run.late("disc_auc")
    if not _CHANCE_AUC <= auc < _HARD_AUC:
        return None
    return Finding(
        "replacements too hard",
        f"The discriminator's area under the curve is {auc:.3f}.",
        "It can hardly tell the replaced tokens, and learns slowly from them. That is usual for "
        "the first steps; where it goes on, the generator is too strong for it.",
        _weaker_generator(run),
    )


def _weaker_generator(run: RunRecord) -> str:
    return (
        f"Shrink model.generator_size={run.config['model']['generator_size']:g} or "
        "model.generator_depth, raise "
        f"objective.mask_prob={run.config['objective']['mask_prob']:g}, or let samples begin more "
        "evenly spread: objective.start_temperature=3 with objective.temperature_steps."
    )


def majority_class(run: RunRecord) -> Finding | None:
    """The discriminator calls everything original, or guesses, and knows no better."""
    recall, auc = run.late("disc_recall"), run.late("disc_auc")
    loss, guess = run.late("disc_loss"), _majority_loss(run)
    knows_nothing = recall < _LITTLE_RECALL or auc < _CHANCE_AUC
    if not (_is_past_warmup(run) and knows_nothing and loss > _NEAR_ENTROPY * guess):
        return None
    return Finding(
        "discriminator at the majority class",
        f"It finds {recall:.1%} of the replaced tokens, the area under the curve is {auc:.3f}, and "
        f"its loss {loss:.3f}; that of a constant guess is {guess:.3f}.",
        "It has not begun to learn. That is usual for the first steps, and for good where the "
        "rate is too high or its weight too small.",
        f"Lower optimizer.learning_rate={run.config['optimizer']['learning_rate']:g}, check "
        f"objective.discriminator_weight="
        f"{run.config['objective'].get('discriminator_weight')} (50), or train longer.",
    )


def data_small(run: RunRecord) -> Finding | None:
    """Training text is known by heart."""
    gap = run.late("mlm_loss", "eval") - run.late("mlm_loss")
    epochs = None
    if run.corpus:
        epochs = tokens_at(run.config, run.of("train")[-1]["step"]) / run.corpus.num_tokens
    if not (gap > _GAP or (epochs is not None and epochs > _MANY_EPOCHS)):
        return None
    times = "" if epochs is None else f" The corpus was read {epochs:.1f} times."
    return Finding(
        "data small",
        f"The generator's loss on held-out text is {gap:+.2f} nats from that in training.{times}",
        "The text is learned by heart rather than the language.",
        "Prepare more text, raise model.dropout_rate, or train for fewer steps.",
    )


def data_duplicated(run: RunRecord) -> Finding | None:
    """Documents repeat."""
    if run.corpus is None or run.corpus.duplicate_share <= _DUPLICATES:
        return None
    return Finding(
        "data duplicated",
        f"{run.corpus.duplicate_share:.0%} of the documents repeat another one.",
        "Repeated text counts for more than it says, and may be in the held-out part, too.",
        "Prepare the corpus again without --keep-duplicates.",
    )


def vocabulary_mismatch(run: RunRecord) -> Finding | None:
    """The vocabulary is of another kind of text."""
    facts = run.corpus
    if facts is None:
        return None
    problems = []
    if facts.unknown_share > _UNKNOWN:
        problems.append(f"{facts.unknown_share:.1%} of the tokens are [UNK]")
    if facts.pieces_per_word is not None and facts.pieces_per_word > _PIECES:
        problems.append(f"a word has {facts.pieces_per_word:.1f} pieces")
    if facts.unused_share > _UNUSED:
        problems.append(
            f"{facts.unused_share:.0%} of the {facts.vocab_size:,} pieces occur nowhere"
        )
    if not problems:
        return None
    seen = "; ".join(problems)
    return Finding(
        "vocabulary mismatch",
        f"{seen[0].upper()}{seen[1:]}.",
        "The vocabulary was learned from text of another language, script or field, or is of "
        "another size than this text needs.",
        "Prepare the corpus with --train-tokenizer, and a --vocab-size that fits it.",
    )


def input_starvation(run: RunRecord) -> Finding | None:
    """The host makes batches more slowly than they are used."""
    share = run.late("input_share")
    if not share > _WAITING:
        return None
    return Finding(
        "input starvation",
        f"{share:.0%} of the time the host makes batches.",
        "The device waits for data: a slow or remote disk, or too few cores.",
        "Copy the corpus to a local disk, or set data.on_device=True where it fits.",
    )


RULES: dict[str, Callable[[RunRecord], Finding | None]] = {
    rule.__name__: rule
    for rule in (
        unfinished,
        not_finite,
        rate_too_high,
        rate_too_low,
        generator_too_weak,
        generator_too_strong,
        replacements_too_hard,
        majority_class,
        data_small,
        data_duplicated,
        vocabulary_mismatch,
        input_starvation,
    )
}


# A finding is left out where one of these is there, which explains the same figures.
_EXPLAINED_BY = {
    "rate_too_low": ("rate_too_high",),
    "generator_too_weak": ("rate_too_low",),
    "replacements_too_hard": (
        "rate_too_high",
        "rate_too_low",
        "generator_too_weak",
        "generator_too_strong",
        "majority_class",
    ),
}


def diagnose(run: RunRecord) -> list[Finding]:
    """What the rules find, in their order, without what another finding explains."""
    found = {name: rule(run) for name, rule in RULES.items()}
    return [
        finding
        for name, finding in found.items()
        if finding and not any(found[other] for other in _EXPLAINED_BY.get(name, ()))
    ]


def in_words(run: RunRecord, findings: Iterable[Finding]) -> str:
    """A paragraph for each finding, or what a run without one looks like."""
    lines = []
    for finding in findings:
        lines += [f"{finding.name}: {finding.seen}", f"  {finding.meaning}", f"  {finding.remedy}"]
    last = run.of("train")[-1]
    figures = ", ".join(
        f"{what} {run.late(metric):.3f}"
        for metric, what in (
            ("mlm_loss", "generator loss"),
            ("sampled_accuracy", "samples right"),
            ("disc_loss", "discriminator loss"),
            ("disc_auc", "area under the curve"),
        )
        if np.isfinite(run.late(metric))
    )
    lines.append(f"{run.path}: {last['step']:,} steps; of the last fifth: {figures}.")
    if run.corpus is None:
        lines.append("The corpus is no longer where it was: nothing was asked of it.")
    if len(lines) == 1 + (run.corpus is None):
        lines.append("Nothing looks wrong.")
    return "\n".join(lines)
