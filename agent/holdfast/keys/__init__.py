"""Floor 1: private keys that never leave their hardware."""
