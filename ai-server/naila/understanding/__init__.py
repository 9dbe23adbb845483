"""Commands in people's own words: what is wanted of which device, how sure that is, and what to ask back."""
