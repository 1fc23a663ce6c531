"""Cohorts: list many photographs, segment each of them, write the tables of their numbers."""
