"""Video files: what is in them, and their frames by time; also cutting (``cutting``) and blobs (``jpeg``)."""

from longvila.media.decode import decode_frames, iterate_frames, sample_times
from longvila.media.probe import Probe, probe

__all__ = ["Probe", "decode_frames", "iterate_frames", "probe", "sample_times"]
