"""Floor 2: the life of an identity, as pure rules."""
