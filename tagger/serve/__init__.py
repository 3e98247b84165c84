"""Tags by HTTP: a service, its page, and what comes live from a microphone."""
