"""The call that `inkturns demo` shows."""
