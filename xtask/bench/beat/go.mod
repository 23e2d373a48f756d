module lifetrace.dev/bench/beat

go 1.22
