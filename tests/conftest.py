"""Settings of the whole suite. Fixtures live beside the tests that use them."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: a test that waits for its turn on a busy machine is not wrong.
settings.register_profile("normal", deadline=None)
settings.load_profile("normal")
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
