#!/bin/sh
# A task of the kill loop: ACTION RUN SECONDS INPUT OUTPUT. It writes two lines to
# $LEDGER, "begin,RUN,TASK,ATTEMPT" when it starts and "commit,..." once its output
# is written. One write of a short line in append mode is whole.
set -eu
action=$1 run=$2 seconds=$3 input=$4 output=${5:-}
workload=${TATEGU_WORKLOAD_DIR##*/}
name=${workload#*-}
line="$run,${name%-*},${name##*-}"
echo "begin,$line" >>"$LEDGER"
sleep "$seconds"
case $action in
step) total=$((input + 1)) ;;
load) total=$(($(cat "$input") + 1)) ;;
save) total=$((input + 1)) ;;
flaky)
	if [ "${name##*-}" = 1 ]; then
		echo 'the first attempt fails'
		exit 7
	fi
	total=$((input + 1))
	;;
job) total=$input ;;
esac
if [ -n "$output" ]; then
	mkdir -p "$(dirname "$output")"
	printf %s "$total" >"$output"
fi
echo "commit,$line" >>"$LEDGER"
