#!/bin/sh
# Makes the recordings anew, as README.md says: needs root, go, and the checkout's development build of lifetrace.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
PATH=$root/target/debug:$PATH
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
cp "$here/nightly.sh" "$here/step" "$desk"
(cd "$root/examples/orders" && go build -trimpath -o "$desk/orders" .)
(cd "$root/examples/incidents" && go build -trimpath -o "$desk/" ./stream ./lease)
cd "$desk"
lifetrace run -o orders.lifetrace --snapshot-every 500ms -- ./orders -leak afterfunc -n 300 -rate 150 -for 1s
lifetrace run -o stream.lifetrace --tier T3 --snapshot-every 1s -- ./stream
lifetrace run -o lease.lifetrace -- ./lease -cause gc -n 24
lifetrace run -o nightly.lifetrace -- ./nightly.sh || [ $? = 1 ]
cp ./*.lifetrace "$here"
