"""Rate-distortion curves read back from results, compared, and drawn."""
