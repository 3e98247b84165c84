"""Audio file -> waveform -> windows."""
