"""The demonstration: made-up people, their history, and providers that answer them."""
