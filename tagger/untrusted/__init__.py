"""Files of strangers -> plain values; nothing in them is executed."""
