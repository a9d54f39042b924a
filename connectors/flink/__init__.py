"""Flink: tables made from the contracts (`tables`), SQL sessions (`session`) and the cluster's REST door (`rest`)."""
