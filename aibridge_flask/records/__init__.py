"""The write side of the records: the events of each interception, and how they reach the database."""
