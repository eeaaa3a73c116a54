"""Every image looked at once: readable or not, what it shows in brief, whom it resembles."""
