"""Limits on what people spend, and rules on which models they use. See docs/limits.md."""
