"""``make proof-discovery``: a device that is told nothing but its maker's anchors finds its owner."""

from __future__ import annotations

import sys

from proofs import joinproxy
from proofs.runner import prove, pytests


def main() -> int:
    """Run all parts in order."""
    return prove(
        "discovery",
        [
            (
                "announcements: the RFCs' examples, each rule, hostile octets",
                pytests("tests/wire/test_discovery_messages.py", "tests/fuzz/test_fuzz_discovery.py"),
            ),
            (
                "sources, order and bounds; the join proxy's limits",
                pytests(
                    "tests/host/test_discovery.py",
                    "tests/host/test_joinproxy.py",
                    "tests/host/test_socks.py",
                    "tests/life/test_search.py",
                ),
            ),
            (
                "the registrar moves, the maker's cloud, lies on the way to both, power cuts",
                pytests("tests/lifecycle/test_found.py", "tests/lifecycle/test_cloud.py"),
            ),
            (
                "namespaces: zero configuration, the join proxy, IPv6 alone, a liar, a flood, a move",
                pytests("tests/discovery/test_on_links.py", "tests/discovery/test_moved.py"),
            ),
            (
                "independent judges on links of their own",
                pytests("tests/discovery/test_judges.py"),
            ),
            ("the join proxy's service under a real systemd", joinproxy.service),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
