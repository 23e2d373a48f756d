module lifetrace.dev/tests/leakset

go 1.21
