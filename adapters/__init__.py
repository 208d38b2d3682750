"""The edge: what stands between the engine and the outside world."""
