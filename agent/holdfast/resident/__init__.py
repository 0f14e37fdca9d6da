"""Floor 4: the parts of the resident process. Standard library only, and none of it is heavy (ADR 18)."""
