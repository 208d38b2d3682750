"""Engines of several machines over one log: how one asks the other, over HTTP that nobody else may speak."""

from __future__ import annotations

from .answering import node_app, serve_nodes
from .asking import HttpPeers
from .signing import BadSecret, ClusterSecret, load_secret

__all__ = ["BadSecret", "ClusterSecret", "HttpPeers", "load_secret", "node_app", "serve_nodes"]
