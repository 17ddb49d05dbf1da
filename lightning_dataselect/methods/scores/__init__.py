"""What a sample can be scored by; one file a score."""
