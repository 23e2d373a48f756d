module lifetrace.dev/tests/gotests

go 1.21
