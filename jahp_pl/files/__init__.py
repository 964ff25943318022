"""Files and folders on disk: found, written whole or not at all, locked, and read without trust."""
