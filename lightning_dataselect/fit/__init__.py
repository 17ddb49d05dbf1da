"""A fit under way: its epochs, passes that only score, and schedules kept in time."""
