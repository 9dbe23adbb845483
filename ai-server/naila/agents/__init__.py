"""The core: one turn from event to reply."""
