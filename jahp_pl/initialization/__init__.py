"""Sets initial weights: a transform coder with simple estimators of means and scales, or another model's networks."""
