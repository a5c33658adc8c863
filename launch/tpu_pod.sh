#!/usr/bin/env bash
# A TPU pod slice: the same command on every host at once; the hosts find each other.
#
#   launch/tpu_pod.sh TPU_NAME ZONE CORPUS WORKDIR [--config.FIELD=VALUE ...]
#
# The repository is at ~/electra_jax on every host, with `make .venv/.run` and
# `.venv/bin/pip install "jax[tpu]==VERSION"` done (README, GPU and TPU); CORPUS and WORKDIR are on a
# disk that all hosts have (Filestore, or a bucket mounted with gcsfuse). Worker 0 prints
# "N processes have met." and the rows. The same command goes on after any end.
set -euo pipefail
name=$1 zone=$2
shift 2
arguments=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd ~/electra_jax && CONFIG=${CONFIG:-configs/large.py} launch/node.sh$arguments"
