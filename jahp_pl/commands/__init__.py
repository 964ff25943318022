"""What the command line does with its parsed arguments. Heavy imports happen inside functions."""
