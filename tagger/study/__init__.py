"""Studies: many fits of one comparison, from one file, with a page that says which differ."""
