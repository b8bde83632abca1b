"""The version of this package: here, and nowhere else."""

VERSION = "1.0.0"
