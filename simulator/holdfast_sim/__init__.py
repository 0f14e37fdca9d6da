"""The owner's network and the manufacturer, on loopback or in process: registrar, MASA, EST and CA.

Everything is a request -> response function over a :class:`~holdfast_sim.world.World`; sockets live in
:mod:`holdfast_sim.serve` alone.
"""
