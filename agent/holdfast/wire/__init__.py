"""Floor 0: sans-IO codecs and client exchanges. No sockets, no clock, no randomness of its own."""
