"""Druid on one machine: all roles and their ZooKeeper in one process that Python starts and stops."""
