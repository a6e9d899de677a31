"""Usage events from files: JSON lines, CSV and Parquet."""
