"""From a list of sources to questions about videos: fetch, validate, scan, dedup, clips, captions, questions.

``curation.build`` has the steps in their order; ``needles``, ``recall`` and ``frame_captions`` compose sets.
Nothing is imported here: composing needs numpy alone, the video steps need PyAV, OpenCV and PySceneDetect.
"""
