"""The contracts: topics, Avro schemas, events, features, Valkey layout. Standard library only; no I/O, no clock."""
