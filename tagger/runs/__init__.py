"""The folder of a training run, and local copies of what lies in a bucket."""
