"""The client of Ink 2 (extra `cartesia`): sound in, frames out, over as many connections as the call needs.

ink = Ink(api_key=key, settings=BALANCED, encoding="pcm_mulaw", sample_rate=8000)
async with ink.connect(sound) as frames:
    await agent.run(frames)
"""

try:
    import websockets  # noqa: F401
except ImportError as missing:
    raise ImportError('inkturns.ink needs websockets: pip install "inkturns[cartesia]"', name=missing.name) from missing

from inkturns.ink.call import Stats
from inkturns.ink.client import LIVE, VERSION, Ink
from inkturns.ink.sound import Sound

__all__ = ["LIVE", "VERSION", "Ink", "Sound", "Stats"]
