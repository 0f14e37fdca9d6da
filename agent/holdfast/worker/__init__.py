"""Floor 4: one step of a device's life: load the record, decide, act, commit, say when to come back."""
