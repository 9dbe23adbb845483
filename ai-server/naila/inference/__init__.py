"""The engine: the only code that touches llama.cpp."""
