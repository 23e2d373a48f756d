module lifetrace.dev/bench/load

go 1.22
