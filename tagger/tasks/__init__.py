"""Tasks: what outputs mean, from the loss to the report. One module each, found by name.

A task knows of all rooms, from the network to the report, and they know of it by its contract
alone, which is `tagger.network.task.Task`.
"""
