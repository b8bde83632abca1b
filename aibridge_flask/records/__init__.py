"""Records: what is told of every interception, and how it comes to the database."""
