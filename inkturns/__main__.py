"""`python -m inkturns`: the `inkturns` command."""

from inkturns.cli.main import main

main()
