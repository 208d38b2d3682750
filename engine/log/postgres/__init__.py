"""The durable log, in a Postgres."""
