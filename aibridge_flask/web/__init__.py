"""Pages and APIs: health, metrics, records, the page of the standalone server."""
