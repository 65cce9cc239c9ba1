"""Videos that are in one another: fingerprints, the passages that two share, and what has to go.

``fingerprint`` codes pictures, ``candidates`` and ``hits`` find videos with near ones, ``lines`` and
``passages`` check that these follow one another in time, ``find`` compares all videos and ``judge`` says what
is kept.
"""
