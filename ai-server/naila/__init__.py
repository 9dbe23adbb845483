"""NAILA, the local brain of a fleet of robots."""

__version__ = "0.1.0"
