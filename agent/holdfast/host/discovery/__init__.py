"""Finding registrars on the network: every source bounded in time and in what it may make us remember."""
