"""Files that somebody else may have made, and those that a command is told to write.

plainfile.py     regular files to which no link leads
jsonfile.py      JSON of bounded size and depth, and logs of a line a step
destination.py   the folder and the errors of a file that an option names
"""
