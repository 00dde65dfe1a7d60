#!/bin/sh
# A program of the flows: RUN NAME SECONDS FAILURES AFTER TOKEN MADE. It fails by itself
# as often as FAILURES says, over all attempts of its NAME in a RUN. TOKEN is where it
# writes who it is, "task-ID-ATTEMPT"; MADE is a folder for an artifact. It writes half
# of both at once, so that what an attempt leaves behind would be seen.
#
# Each step is a line of $FLOWS, "TIME,STEP,RUN,NAME,WORKLOAD"; one write of a short
# line in append mode is whole.
set -eu
run=$1 name=$2 seconds=$3 failures=$4 after=$5 token=$6 made=$7
me=${TATEGU_WORKLOAD_DIR##*/}
say() { echo "$(date +%s.%N),$1,$run,$name,$me" >>"$FLOWS"; }

echo "attempt $me of $name"
say begin
mkdir -p "$(dirname "$token")" "$made"
printf 'half of %s' "$me" >"$token"
printf 'half of %s' "$me" >"$made/data"
printf %s "$me" >"$made/part-$me"
case $after in
half*) say mixed ;; # never handed on
esac
sleep "$seconds"
if [ "$(grep -c ",fails,$run,$name," "$FLOWS" || true)" -lt "$failures" ]; then
	say fails
	echo 'it fails by itself' >&2
	exit 7
fi
printf %s "$me" >"$made/data"
printf %s "$me" >"$token"
say commit
