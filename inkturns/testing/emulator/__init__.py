"""Ink 2 on your desk: a WebSocket server whose users say what a script says, and which fails where the script asks."""

try:
    import websockets  # noqa: F401
except ImportError as missing:
    said = 'inkturns.testing.emulator needs websockets: pip install "inkturns[testing]"'
    raise ImportError(said, name=missing.name) from missing

from inkturns.testing.emulator.parts import hesitation, noise, pause, say, trouble
from inkturns.testing.emulator.script import Script
from inkturns.testing.emulator.server import InkEmulator

__all__ = ["InkEmulator", "Script", "hesitation", "noise", "pause", "say", "trouble"]
