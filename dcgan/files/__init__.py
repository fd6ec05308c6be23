"""Files that somebody else may have made, and files that must not be half-written: what may be opened at all.

plainfile.py   regular files to which no link leads
jsonfile.py    JSON of bounded size and depth, and logs of a line a step
"""
