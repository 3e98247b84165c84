"""Which clips there are, what they carry, who trains, and where to get them."""
