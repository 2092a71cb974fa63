"""Files from elsewhere: fetched once per machine into a folder, and used from there.

urls.py: which objects a text means, and where each lies in the folder. stores.py: how they are read. partial.py: a file
of which a part is there. fetch.py: one file. arrival.py: those of a data set, while the first ones are in use.
"""
