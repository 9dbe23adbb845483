"""The devices: what they declared, what they measure, and the only way to move them."""
