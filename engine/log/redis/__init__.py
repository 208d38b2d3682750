"""The durable log, in a Redis: one server, or a Redis Cluster."""
