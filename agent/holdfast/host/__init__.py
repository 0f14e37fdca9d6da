"""Floor 3: this Linux host: disk, network, clock, configuration."""
