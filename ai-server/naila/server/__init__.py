"""The composition root: phases of life, health, metrics, logs."""
