"""Tools that prove inkturns, for its own tests and for programs that embed it (extra `testing`).

oracle         checks a session against the machine's laws
agent_oracle   checks a whole call against the agent's laws
strategies     draws sessions, policies and frames with Hypothesis
storm          runs a whole agent through a hostile call that is drawn from a seed
virtual_time   runs async code on a clock that does not wait
emulator       Ink 2 on your desk: a WebSocket server that follows a script
"""
