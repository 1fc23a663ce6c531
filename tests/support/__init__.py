"""Shared by the tests: stand-ins, a Hub on the loopback address, a corpus of difficult files."""
