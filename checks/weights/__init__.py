"""What the parts of trained weights are worth, and images unlike photographs."""
