"""Files that somebody else may have made: plain files without links, and JSON of bounded size.

plainfile.py   regular files to which no link leads
jsonfile.py    JSON of bounded size and depth, and logs of a line a step
"""
