"""The language model as the rest of the house sees it, and the files it comes from."""
