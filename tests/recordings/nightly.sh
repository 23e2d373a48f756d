#!/bin/sh
# A nightly job. Its report hangs, takes no notice of SIGTERM, and is killed.
./step fetch 0.2
./step report 30 &
report=$!
sleep 0.5
kill $report
sleep 0.3
kill -KILL $report
wait $report
exit 1
