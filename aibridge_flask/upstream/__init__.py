"""Sending to upstreams."""
