"""Integrity first: which requests no person made, before anybody is asked or paid."""
