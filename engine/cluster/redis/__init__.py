"""The bus over a Redis."""
