"""What people and machines read: health, records, the page of the standalone server."""
