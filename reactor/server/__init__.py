"""Serving an app over WebSocket and HTTP."""
