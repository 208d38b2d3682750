"""Engines that share a log, as nodes: who is there, and what becomes of what one leaves behind."""
