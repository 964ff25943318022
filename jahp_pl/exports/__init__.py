"""A model as a folder to keep and to give away, those that come with the package, and the Hugging Face Hub."""
