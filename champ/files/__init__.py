"""Reads files from untrusted sources: nothing in a file is run, no path in it is opened, no size in it is believed.

Every kind of file has one reader here, and every limit is a named constant. Reading takes at most four times the size
of the file and 200 MB.
"""
