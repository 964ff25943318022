"""Files and folders on disk: written whole or not at all, locked, and read without trust."""
