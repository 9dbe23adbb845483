"""What was said and learned, in SQLite."""
