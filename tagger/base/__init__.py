"""What all may use, and what uses nothing of ours: errors, whole files, the log, addresses."""
