"""Spark: bronze → silver → gold, in one session. See README.md."""
