"""The sub-commands of `naila`, one module a noun."""
