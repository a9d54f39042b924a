"""Every door to the outside: clients of Kafka, registry, Valkey, Druid, Delta, Flink, Spark and MLflow. No business rules."""
