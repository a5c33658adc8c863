#!/usr/bin/env bash
# One machine, all its GPUs or TPU chips, in one process.
#
#   launch/node.sh CORPUS WORKDIR [--config.FIELD=VALUE ...]
#
# Prints "small: 14,196,219 parameters, ..., 8 x ..., jit, ...", then a line a
# hundred steps. The same command goes on after any end.
set -euo pipefail
corpus=$1 workdir=$2
shift 2
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" train.py --config="${CONFIG:-configs/small.py}" \
  --config.data.path="$corpus" --workdir="$workdir" "$@"
