"""What operators see of a running bridge."""
