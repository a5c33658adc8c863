"""The `electra-jax` program: every verb but training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from electra_jax import command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return command_line.run(lambda: arguments.verb(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The parser of `electra-jax`, a sub-command for each verb."""
    parser = argparse.ArgumentParser(prog="electra-jax", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    prepare = verbs.add_parser("prepare", help="make a corpus from text files")
    prepare.add_argument("inputs", nargs="+", metavar="INPUT", help="files, directories or globs")
    prepare.add_argument("--output", required=True, help="the corpus directory to make")
    tokenizer = prepare.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument("--vocab", help="a vocab.txt of WordPiece")
    tokenizer.add_argument(
        "--train-tokenizer", choices=("wordpiece",), help="learn a vocabulary from the text"
    )
    prepare.add_argument(
        "--vocab-size", type=int, default=30522, help="ids of a learned vocabulary (30522)"
    )
    prepare.add_argument("--cased", action="store_true", help="keep upper case")
    prepare.add_argument(
        "--keep-accents", action="store_true", help="keep accents where lower-casing"
    )
    prepare.add_argument(
        "--validation-fraction",
        type=float,
        default=0.005,
        help="share of the documents that training never sees (0.005)",
    )
    prepare.add_argument(
        "--one-document-per-file",
        action="store_true",
        help="blank lines do not separate documents",
    )
    prepare.add_argument(
        "--one-sentence-per-line", action="store_true", help="lines are not split into sentences"
    )
    prepare.add_argument(
        "--encoding-errors",
        choices=("replace", "refuse"),
        default="replace",
        help="bytes that are no UTF-8: replaced and counted, or refused",
    )
    prepare.set_defaults(verb=_prepare)

    inspect = verbs.add_parser("inspect", help="check a corpus and describe it")
    inspect.add_argument("corpus", metavar="DIR")
    inspect.set_defaults(verb=_inspect)
    return parser


def _prepare(arguments: argparse.Namespace) -> None:
    from electra_jax.data.prepare import Progress, prepare_corpus

    def report(progress: Progress) -> None:
        print(
            f"{progress.files_done}/{progress.num_files} files, "
            f"{progress.text_bytes / 1e6:,.0f} MB, {progress.documents:,} documents, "
            f"{progress.tokens:,} tokens",
            file=sys.stderr,
        )

    corpus = prepare_corpus(
        arguments.inputs,
        arguments.output,
        vocab=arguments.vocab,
        train_tokenizer=arguments.train_tokenizer,
        vocab_size=arguments.vocab_size,
        lowercase=not arguments.cased,
        strip_accents=False if arguments.keep_accents else None,
        validation_fraction=arguments.validation_fraction,
        blank_line_separates=not arguments.one_document_per_file,
        split_sentences=not arguments.one_sentence_per_line,
        encoding_errors=arguments.encoding_errors,
        progress=report,
    )
    for name, value in corpus.metadata["summary"].items():
        print(f"{name:22} {value:,}" if isinstance(value, int) else f"{name:22} {value:.6f}")
    print(f"\nNext: python train.py --config=configs/small.py --config.data.path={corpus.path}")


def _inspect(arguments: argparse.Namespace) -> None:
    from electra_jax.data.inspect import describe_corpus

    print(describe_corpus(arguments.corpus))


if __name__ == "__main__":
    sys.exit(main())
