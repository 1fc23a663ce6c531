"""Many photographs at once: which they are, what is made of each, the tables of their numbers."""
