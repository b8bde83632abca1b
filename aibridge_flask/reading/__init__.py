"""The read side of the records: what the records API asks for."""
