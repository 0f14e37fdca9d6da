"""Listens as a pledge does, and tells what it cost: ``python -m discovery.listener SECONDS``."""

from __future__ import annotations

import json
import resource
import secrets
import sys
import time

from holdfast.host.discovery.interfaces import listening
from holdfast.host.discovery.neighbours import listen
from holdfast.life.search import Source

if __name__ == "__main__":
    both = (Source.MDNS, Source.GRASP)
    listen(both, listening(), 0.1, secrets.token_bytes, time.monotonic)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = listen(both, listening(), float(sys.argv[1]), secrets.token_bytes, time.monotonic)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {
        "heard": sum(each.heard for each in found.values()),
        "places": sum(len(each.places) for each in found.values()),
        "grown_kib": peak - before,
        "peak_kib": peak,
    }
    sys.stdout.write(json.dumps(told))
