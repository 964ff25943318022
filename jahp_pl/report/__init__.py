"""Reports: rate-distortion curves read from results, compared, and drawn."""
