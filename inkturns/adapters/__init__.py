"""Other senders' messages as inkturns' events. Each adapter is a source: `Turns(source=Flux())`.

Rules of this package: an adapter translates and decides nothing; what is out of contract is the machine's to repair and
to report. It remembers only what it must of the open turn, so there is one per call. It takes the few fields that it
needs from a message, ignores the rest, and knows a message by its `type`, never by its class (F09). It raises
DecodeError for a frame that it cannot read, and nothing else. A sender's package is imported only where it has to be;
no adapter imports another, and this file imports none.
"""
