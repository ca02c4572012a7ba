"""What proves inkturns, for us and for whoever embeds it (extra `testing`).

`oracle` says whether a session kept the machine's laws; `strategies` draws sessions, policies and frames with
Hypothesis; `storm` runs a whole agent through a drawn call in `virtual` time, and `outside` judges what was spoken."""
