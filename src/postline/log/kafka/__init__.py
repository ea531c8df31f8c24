"""The engine on Apache Kafka and what speaks its protocol; `log.KafkaLog` is what layers above build."""
