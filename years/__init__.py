"""Ten years of a device in seconds, and a fleet of a million: the agent's real code in virtual time.

``life`` drives one device, ``fleet`` a million; ``python -m years`` replays a seed.
"""
