"""The `inkturns` command (extra `cli`)."""
