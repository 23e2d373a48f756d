module lifetrace.dev/bench/shop

go 1.22
