"""Memory over many photographs."""
