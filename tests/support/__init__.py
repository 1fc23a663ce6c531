"""Shared by the tests: stand-ins, a Hub on the loopback address, a corpus of difficult files."""

PATIENCE_S = 600  # time limit of a wait that ends at once on an idle machine; a busy one is slower by a factor of ten
