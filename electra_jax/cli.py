"""The `electra-jax` program: every verb but training."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import electra_jax
from electra_jax import command_line
from electra_jax.cli_inference import add_inference
from electra_jax.cli_runs import add_runs
from electra_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    own, rest = argv, []
    if "--" in argv:
        own, rest = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    arguments = argparse.Namespace()
    status = command_line.run(lambda: build_parser().parse_args(own, arguments))
    if status:
        return status
    arguments.rest = rest
    return command_line.run(
        lambda: arguments.verb(arguments), after_interrupt=arguments.after_interrupt
    )


class _Parser(argparse.ArgumentParser):
    """Tells of a mistake in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help lists the arguments)")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `electra-jax`, a sub-command for each verb."""
    parser = _Parser(prog="electra-jax", description=__doc__)
    parser.add_argument(
        "--version", action="version", version=f"electra-jax {electra_jax.__version__}"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_prepare(verbs)
    _add_inspect(verbs)
    _add_predict(verbs)
    _add_convert(verbs)
    add_inference(verbs)
    add_runs(verbs)
    return parser


def _add_prepare(verbs) -> None:
    parser = verbs.add_parser(
        "prepare",
        help="make a corpus from text",
        usage="electra-jax prepare INPUT... --output DIR (--vocab FILE | --train-tokenizer KIND) "
        "[options] [-- BEAM PIPELINE OPTIONS]",
        description="Makes a corpus from text. The same command again goes on with an unfinished "
        "corpus, and leaves a finished one untouched.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, directories and globs: text, .jsonl, .parquet, tar archives, plain or .gz, "
        ".xz, .zst; or tfds:NAME/CONFIG:SPLIT#FIELD",
    )
    parser.add_argument("--output", required=True, help="the corpus directory to make")

    group = parser.add_argument_group("tokenizer")
    choice = group.add_mutually_exclusive_group(required=True)
    choice.add_argument("--vocab", help="a vocab.txt of WordPiece, or a .model of SentencePiece")
    choice.add_argument(
        "--train-tokenizer",
        choices=("wordpiece", "sentencepiece-unigram", "sentencepiece-bpe"),
        help="learn a vocabulary from the text",
    )
    group.add_argument(
        "--vocab-size", type=int, metavar="N", help="ids of a learned vocabulary (30522)"
    )
    group.add_argument("--cased", action="store_true", help="keep upper case")
    group.add_argument(
        "--keep-accents", action="store_true", help="keep accents where lower-casing"
    )
    group.add_argument(
        "--tokenizer-sample-mb",
        type=float,
        metavar="MB",
        help="text to learn a vocabulary from, chosen by hash (100; unigram: 30)",
    )

    group = parser.add_argument_group("reading")
    group.add_argument("--field", default="text", help="of JSON lines, Parquet, TFDS (text)")
    group.add_argument(
        "--one-document-per-file",
        action="store_true",
        help="blank lines do not separate documents",
    )
    group.add_argument(
        "--one-sentence-per-line", action="store_true", help="lines are not split into sentences"
    )
    group.add_argument(
        "--encoding-errors",
        choices=("replace", "refuse"),
        default="replace",
        help="bytes that are no UTF-8: replaced and counted (default), or refused",
    )
    group.add_argument(
        "--bad-input",
        choices=("refuse", "skip"),
        default="refuse",
        help="rows without text and damaged archives: refused (default), or skipped and counted",
    )
    group.add_argument("--tfds-data-dir", metavar="DIR", help="where TensorFlow datasets are")

    group = parser.add_argument_group("choosing documents")
    group.add_argument(
        "--min-characters", type=int, default=0, metavar="N", help="leave shorter ones out (0)"
    )
    group.add_argument(
        "--keep-duplicates", action="store_true", help="keep documents whose text has come before"
    )
    group.add_argument(
        "--filter",
        metavar="FILE.py:FUNCTION",
        help="a function from a document's text to whether it is kept",
    )
    group.add_argument(
        "--validation-fraction",
        type=float,
        default=0.005,
        metavar="SHARE",
        help="share of the documents that training never sees (0.005)",
    )

    group = parser.add_argument_group("running")
    group.add_argument(
        "--num-workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes (as many as there are cores); the corpus does not depend on it",
    )
    group.add_argument(
        "--runner",
        choices=("local", "beam"),
        default="local",
        help="processes of this machine (default), or Apache Beam, with the options after --",
    )
    resumes = "the same command goes on where this one was"
    parser.set_defaults(verb=_prepare, after_interrupt=resumes)


def _add_inspect(verbs) -> None:
    parser = verbs.add_parser("inspect", help="check a corpus and describe it")
    parser.add_argument("corpus", metavar="DIR")
    parser.add_argument(
        "--picture", metavar="FILE", help="draw the lengths of the documents to a .png, .svg, .pdf"
    )
    parser.set_defaults(verb=_inspect, after_interrupt="nothing was changed")


def _add_predict(verbs) -> None:
    parser = verbs.add_parser("predict", help="apply a fine-tuned model to new text")
    parser.add_argument("model", metavar="DIR", help="what finetune.py has left")
    parser.add_argument(
        "file", metavar="FILE", help="in the task's format, or .txt with one text a line"
    )
    parser.add_argument("--output", metavar="FILE", help="JSON lines; standard output by default")
    for column, what in (("text", "the text"), ("text-b", "the second text"), ("id", "ids")):
        parser.add_argument(
            f"--{column}-column", metavar="NAME", help=f"of {what}, if not as in training"
        )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.set_defaults(verb=_predict, after_interrupt="nothing was written")


def _add_convert(verbs) -> None:
    parser = verbs.add_parser("convert", help="models from and to other formats")
    formats = parser.add_subparsers(required=True, metavar="FORMAT")

    def add(name, what, verb, source, metavar, source_help, description):
        parser = formats.add_parser(name, help=what, description=description)
        parser.add_argument(source, metavar=metavar, help=source_help)
        parser.add_argument("output", metavar="OUT", help="a directory that does not exist yet")
        parser.set_defaults(verb=verb, after_interrupt="nothing was written")
        return parser

    add(
        "to-hf", "a run to Hugging Face's files", _to_hugging_face,
        "run", "RUN", "the --workdir of a run",
        "Writes OUT/discriminator and OUT/generator of a run of train.py, or OUT of a fine-tuned "
        "model, for transformers 4 and 5.",
    )  # fmt: skip
    add(
        "from-hf", "Hugging Face's files to a model of ours", _from_hugging_face,
        "source", "DIR", "a model of transformers",
        "Reads an ELECTRA or the encoder of a BERT, or DIR/discriminator and DIR/generator. What "
        "it writes can be given to --config.pretrained and --config.init_from, as DIR itself can.",
    )  # fmt: skip
    parser = add(
        "from-tf", "a checkpoint of the original TensorFlow code to a model of ours",
        _from_tensorflow, "source", "CKPT", "such as electra_small/model.ckpt-1000000",
        "Needs TensorFlow (pip install tensorflow-cpu), which reads the file.",
    )  # fmt: skip
    parser.add_argument("--vocab", metavar="FILE", help="vocab.txt, if it is not beside CKPT")
    parser.add_argument("--cased", action="store_true", help="the vocabulary has upper case")


def _prepare(arguments: argparse.Namespace) -> None:
    from electra_jax.data.build.progress import ProgressDisplay
    from electra_jax.data.prepare import prepare_corpus

    with ProgressDisplay() as display:
        corpus = prepare_corpus(
            arguments.inputs,
            arguments.output,
            vocab=arguments.vocab,
            train_tokenizer=arguments.train_tokenizer,
            vocab_size=arguments.vocab_size,
            lowercase=False if arguments.cased else None,
            strip_accents=False if arguments.keep_accents else None,
            tokenizer_sample_mb=arguments.tokenizer_sample_mb,
            field=arguments.field,
            one_document_per_file=arguments.one_document_per_file,
            split_sentences=not arguments.one_sentence_per_line,
            encoding_errors=arguments.encoding_errors,
            bad_input=arguments.bad_input,
            tfds_data_dir=arguments.tfds_data_dir,
            min_characters=arguments.min_characters,
            keep_duplicates=arguments.keep_duplicates,
            filter=arguments.filter,
            validation_fraction=arguments.validation_fraction,
            num_workers=arguments.num_workers,
            runner=arguments.runner,
            beam_options=arguments.rest,
            display=display,
        )
    for name, value in corpus.metadata["summary"].items():
        print(f"{name:22} {value:,}" if isinstance(value, int) else f"{name:22} {value:.6f}")
    print(f"\nNext: python train.py --config=configs/small.py --config.data.path={corpus.path}")


def _inspect(arguments: argparse.Namespace) -> None:
    from electra_jax.data.inspect import describe_corpus

    print(describe_corpus(arguments.corpus, arguments.picture))


def _predict(arguments: argparse.Namespace) -> None:
    from electra_jax.finetuning.prediction import Predictor
    from electra_jax.tasks.outputs import write_rows

    if arguments.batch_size < 1:
        raise UserError(f"--batch-size={arguments.batch_size} must be positive")
    if arguments.output and os.path.exists(arguments.output):
        if os.path.realpath(arguments.output) == os.path.realpath(arguments.file):
            raise UserError(f"--output={arguments.output} is the file to predict: choose another")
    predictor = Predictor(arguments.model, batch_size=arguments.batch_size)
    named = {name: getattr(arguments, f"{name}_column") for name in ("text", "text_b", "id")}
    named = {name: column for name, column in named.items() if column is not None}
    rows, notes = predictor.predict_file(arguments.file, columns_called=named)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.output:
        write_rows(arguments.output, rows)
        return
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))


def _to_hugging_face(arguments: argparse.Namespace) -> None:
    from electra_jax.convert import to_hugging_face_directory

    for directory in to_hugging_face_directory(arguments.run, arguments.output):
        print(directory)


def _from_hugging_face(arguments: argparse.Namespace) -> None:
    from electra_jax.convert import from_hugging_face_directory

    print(from_hugging_face_directory(arguments.source, arguments.output))


def _from_tensorflow(arguments: argparse.Namespace) -> None:
    from electra_jax.convert import from_tensorflow_checkpoint

    how = {"vocab": arguments.vocab, "lowercase": not arguments.cased}
    print(from_tensorflow_checkpoint(arguments.source, arguments.output, **how))


if __name__ == "__main__":
    sys.exit(main())
