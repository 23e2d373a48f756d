module lifetrace.dev/examples/orders

go 1.21
