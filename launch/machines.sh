#!/usr/bin/env bash
# Several machines without a scheduler: run this on each of them, with its own number.
#
#   launch/machines.sh HOST_OF_MACHINE_0:PORT NUMBER_OF_MACHINES NUMBER_OF_THIS_ONE CORPUS WORKDIR \
#     [--config.FIELD=VALUE ...]
#
# Machine 0 prints "N processes have met." once all are there (they may start five minutes apart).
# After any end, the same commands go on from the last checkpoint.
set -euo pipefail
coordinator=$1 count=$2 number=$3
shift 3
exec "$(dirname "$0")/node.sh" "$@" \
  --config.parallel.coordinator_address="$coordinator" \
  --config.parallel.num_processes="$count" \
  --config.parallel.process_id="$number"
