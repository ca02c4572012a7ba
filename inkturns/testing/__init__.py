"""What proves inkturns, for us and for whoever embeds it (extra `testing`): `oracle` says whether a session kept the
laws, `strategies` draws sessions, policies and frames with Hypothesis."""
