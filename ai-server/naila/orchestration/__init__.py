"""The turn as a LangGraph graph: understand, recall, decide, generate, guard, remember."""
