"""Apache Kafka on this machine, for the tests and for trials: brokers that start, stop, die, hang and come back."""
