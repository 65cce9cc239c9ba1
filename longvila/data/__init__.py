"""Data sets for training: write, verify, read, mix, order, pack, load."""

from longvila.data.collate import PackedBatch
from longvila.data.index import DatasetIndexRef, Index, open_index
from longvila.data.loader import LoaderState, PackedLoader, StepInfo, TrainStep
from longvila.data.parts import SampleWithFrames
from longvila.data.reader import ShardReader, open_reader
from longvila.data.shards import write_dataset
from longvila.data.verify import VerifyReport, verify_dataset

__all__ = [
    "DatasetIndexRef",
    "Index",
    "LoaderState",
    "PackedBatch",
    "PackedLoader",
    "SampleWithFrames",
    "ShardReader",
    "StepInfo",
    "TrainStep",
    "VerifyReport",
    "open_index",
    "open_reader",
    "verify_dataset",
    "write_dataset",
]
