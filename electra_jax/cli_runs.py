"""The verbs of `electra-jax` that look at runs."""

from __future__ import annotations

import argparse


def add_runs(verbs) -> None:
    """Adds `doctor` and `report`."""
    parser = verbs.add_parser(
        "doctor",
        help="say what looks wrong with a run",
        description="Reads a run's metrics and says in words what a practitioner would see.",
    )
    parser.add_argument("run", metavar="RUN", help="the workdir of a run of train.py")
    parser.set_defaults(verb=_doctor, after_interrupt="nothing was changed")
    parser = verbs.add_parser(
        "report",
        help="write a page about runs",
        description="Writes one self-contained HTML page: curves, configuration, throughput, "
        "corrupted text with the discriminator's verdicts, fine-tuning results, diagnosis.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="workdirs of train.py and finetune.py"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the page, .html")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="CSV",
        help="a file or directory of curves to lay under, as --write-csv leaves them; or those of "
        "this project: reference, reference:NAME",
    )
    parser.add_argument("--write-csv", metavar="DIR", help="write each run's curves there, too")
    parser.set_defaults(verb=_report, after_interrupt="nothing was written")


def _doctor(arguments: argparse.Namespace) -> None:
    from electra_jax.doctor import diagnose, in_words
    from electra_jax.run_record import read_run

    run = read_run(arguments.run)
    print(in_words(run, diagnose(run)))


def _report(arguments: argparse.Namespace) -> None:
    from electra_jax.report import write_report

    print(
        write_report(
            arguments.runs,
            arguments.output,
            against=arguments.against,
            csv_directory=arguments.write_csv,
        )
    )
