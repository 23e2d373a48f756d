module lifetrace.dev/examples/incidents

go 1.21
