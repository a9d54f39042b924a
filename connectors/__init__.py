"""Every door to the outside: Kafka, registry, Valkey, Druid, Delta, Flink, Spark, MLflow. No business rules."""
