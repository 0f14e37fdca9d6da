"""``holdfast doctor``'s checks, one a file. Each looks, says what it saw, and changes nothing."""
