"""Candidates' inputs from counters."""
