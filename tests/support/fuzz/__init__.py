"""Strategies of the fuzzer (https://hypothesis.readthedocs.io), and the bridge that it runs against."""
