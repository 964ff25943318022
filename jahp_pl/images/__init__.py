"""Still images of any kind to RGB, with their colours."""
