#!/usr/bin/env bash
# Runs a command and passes SIGTERM on to it; ends with status 75 ("try again") where it ended well
# without the run's last checkpoint: it was stopped, and has work left.
#
#   launch/until_finished.sh WORKDIR LAST_STEP COMMAND...
set -uo pipefail
last=$1/checkpoints/$2
shift 2
child='' asked=''
trap 'asked=yes; [ -z "$child" ] || kill -TERM "$child"' TERM
"$@" &
child=$!
[ -z "$asked" ] || kill -TERM "$child"
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do # the signal has ended the waiting, not the command
  wait "$child"
  status=$?
done
if [ "$status" -eq 0 ] && [ ! -d "$last" ]; then
  status=75
fi
exit "$status"
