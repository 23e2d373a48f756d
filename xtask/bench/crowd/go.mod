module lifetrace.dev/bench/crowd

go 1.22
