"""From image to bytes and back: exact entropy parameters, probability tables, range coding, the file format."""
