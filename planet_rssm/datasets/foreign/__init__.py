"""Sets of episodes from the formats of other programs, each read without the program itself.

A `Source` says what is in the files. `Mapping` says what becomes of it here: which columns are
observations, how time is aligned, what the actions' range is. `survey` looks before anything is
written, `write` makes the episodes.
"""
