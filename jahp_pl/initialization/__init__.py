"""Where training starts: a transform coder with plain estimators of means and scales, or another model's networks."""
