"""Reports: reads rate-distortion curves from results, compares them, and draws them."""
