"""Compares several pre-trainings at equal cost.

python sweep.py --config=configs/sweeps/objectives.py [--config.FIELD=VALUE ...] [--workdir=DIR]
"""

import sys

from electra_jax import command_line


def main() -> None:
    """Reads the command line, trains and compares."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    config, workdir = command_line.parse_config(sys.argv, default_workdir="runs/{name}")
    from electra_jax.sweep import run_sweep

    run_sweep(config, workdir)
    print(f"\nThe table: {workdir}/table.md, and as a picture: {workdir}/sweep.png")


if __name__ == "__main__":
    sys.exit(command_line.run(main, after_interrupt="the same command goes on with what is left"))
