"""Holdfast: the identity of a Linux/IoT gateway, from first boot through years of unattended renewal."""
