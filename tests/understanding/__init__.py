"""How texts are understood, and the judge of it."""
