"""Pre-trains ELECTRA.

python train.py --config=configs/small.py [--config.FIELD=VALUE ...] [--workdir=DIR]
"""

import sys

from electra_jax import command_line


def main() -> None:
    """Reads the command line and trains."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    config, workdir = command_line.parse_config(sys.argv, default_workdir="runs/{name}")
    from electra_jax import processes
    from electra_jax.pretraining import train_and_evaluate

    with processes.noticing_losses():
        train_and_evaluate(config, workdir)


def leave(status: int) -> None:
    """A process that fails does not wait for the others."""
    from electra_jax import processes

    processes.leave(status)


if __name__ == "__main__":
    resumes = "the same command goes on from the last checkpoint"
    sys.exit(command_line.run(main, after_interrupt=resumes, at_failure=leave))
