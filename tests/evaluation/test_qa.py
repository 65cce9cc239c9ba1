import numpy as np
import pytest

from longvila.config.evaluation import QaEvalConfig
from longvila.data.parts import SampleWithFrames
from longvila.data.reader import open_reader
from longvila.data.shards import write_dataset
from longvila.errors import InputError
from longvila.evaluation import qa, questions
from longvila.evaluation.trials import TrialLog
from longvila.media.jpeg import pack_frames
from longvila.records import Sample, Turn
from longvila.storage import open_storage
from tests.evaluation.tiny import bigram_model, lively_model, noise_bank, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer("what is the main colour", "how strong is the motion", "still", "on off")
CONFIG = QaEvalConfig(dataset="films", max_frames=6)
PIXELS = noise_bank(64).frames_NHW3
KNOWN = {"colour": "red", "red": "<eos>", "motion": "still", "still": "<eos>"}


def sample(key, split, video, start, asked):
    """A window of 8 frames at 2 frames per second, and (kind, question, answer) for each turn."""
    turns = []
    for _, question, answer in asked:
        turns.append(Turn(role="human", text=question if turns else f"<frames> {question}"))
        turns.append(Turn(role="gpt", text=answer))
    kinds = [{"kind": kind} for kind, _, _ in asked]
    record = Sample(
        key=key, kind="video", split=split, conversations=tuple(turns), video_id=video,
        frame_times_s=tuple(start + i / 2 for i in range(8)), provenance={"questions": kinds},
    )  # fmt: skip
    frames = PIXELS[int(start * 2) : int(start * 2) + 8]
    return SampleWithFrames(record, pack_frames(frames, quality=95))


COLOUR, MOTION = "what is the main colour", "how strong is the motion"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    storage = open_storage(tmp_path_factory.mktemp("films"))
    heldout = [
        sample("h-00", "heldout", "v1", 0.0, [("colour", COLOUR, "red")]),
        sample("h-01", "heldout", "v1", 2.0, [("colour", COLOUR, "green")]),
        sample("h-02", "heldout", "v1", 2.0, [("motion", MOTION, "still")]),
        sample("h-03", "heldout", "v2", 4.0, [("colour", COLOUR, "red"), ("motion", MOTION, "on")]),
    ]
    train = [
        sample("t-00", "train", "v3", 6.0, [("colour", COLOUR, "green"), ("motion", MOTION, "still")]),
        sample("t-01", "train", "v3", 8.0, [("colour", COLOUR, "green")]),
        sample("t-02", "train", "v3", 9.0, [("colour", COLOUR, "red")]),
    ]
    write_dataset(storage, "films", "heldout", heldout, target_bytes=2**20)
    write_dataset(storage, "films", "train", train, target_bytes=2**20)
    return f"{storage.url}/shards/films"


def run(model, films, *, log=None, **kwargs):
    log = TrialLog(None, weight_digest="w") if log is None else log
    reader, training = open_reader(films, split="heldout"), open_reader(films, split="train")
    return qa.run(model, TOKENIZER, CONFIG, reader=reader, training=training, log=log, **kwargs)


def test_a_model_with_known_answers_gets_the_known_score(films):
    result = run(bigram_model(TOKENIZER, KNOWN), films)
    scores = {score.kind: score for score in (*result.kinds, result.overall)}
    counted = {kind: (score.model.right, score.model.total) for kind, score in scores.items()}
    assert counted == {"colour": (2, 3), "motion": (1, 2), "all": (3, 5)}
    assert scores["colour"].majority.right == 1  # green is the commonest in training
    assert scores["motion"].majority.right == 1
    assert result.overall.text_only == result.overall.model  # this model does not look
    assert result.overall.gain.value == 0.0
    assert result.overall.mcnemar.p_value == 1.0
    assert result.num_videos == 2
    assert result.mean_frames == 6
    assert result.unanswered == 0


def test_examples_show_what_was_said_with_and_without_frames(films):
    result = run(bigram_model(TOKENIZER, KNOWN), films)
    assert len(result.examples) == 5
    assert {(e.kind, e.question, e.said) for e in result.examples} == {
        ("colour", COLOUR, "red"),
        ("motion", MOTION, "still"),
    }
    assert {e.answer for e in result.examples} == {"red", "green", "still", "on"}
    assert all(e.said_blind == e.said for e in result.examples)


def test_silence_is_counted_as_wrong_and_said(films):
    result = run(bigram_model(TOKENIZER, {"colour": "<eos>", "motion": "still", "still": "<eos>"}), films)
    assert result.unanswered == 3
    assert result.overall.model.right == 1


def test_frames_left_out_are_left_out(films):
    """A model that looks says other things without frames; the text-only answers know no frames at all."""
    log = TrialLog(None, weight_digest="w")
    run(lively_model(TOKENIZER), films, log=log)
    asked = questions.held_out_questions(open_reader(films, split="heldout"), max_frames=6)
    shown = [log.get(q.trial_id) for q in asked]
    blind = [log.get(qa._blind_id(q)) for q in asked]
    assert [a.num_frames for a in shown] == [6] * 5
    assert [a.num_frames for a in blind] == [0] * 5
    assert [a.num_tokens for a in blind] == [1 + 5 + 2] * 5
    same_question = [a.said for a, q in zip(blind, asked, strict=True) if q.kind == "colour"]
    assert len({a.said for a in shown}) > 1
    assert len(set(same_question)) == 1


def test_nothing_is_asked_twice(films, tmp_path):
    path = tmp_path / "trials.jsonl"
    model = bigram_model(TOKENIZER, KNOWN)
    first = run(model, films, log=TrialLog(path, weight_digest="w"))
    size = path.stat().st_size
    again = run(bigram_model(TOKENIZER, {}), films, log=TrialLog(path, weight_digest="w"))
    assert again.overall == first.overall
    assert path.stat().st_size == size


def test_turns_are_asked_apart_with_their_frames_once(films):
    reader = open_reader(films, split="heldout")
    asked = questions.held_out_questions(reader, max_frames=4)
    assert [len(q.sample.conversations) for q in asked] == [2] * 5
    assert all(q.sample.conversations[0].text.startswith("<frames> ") for q in asked)
    assert all(q.sample.num_frames == len(q.shown) == 4 for q in asked)
    assert len({q.trial_id for q in asked}) == 5
    frames, rows = questions.read_frames(reader, asked, size=32)
    np.testing.assert_array_equal(rows[3], rows[4])
    np.testing.assert_array_equal(rows[1], rows[2])
    for question, row in zip(asked, rows, strict=True):
        np.testing.assert_array_equal(frames[row], reader.frames(question.source, question.shown))
    assert len(frames) < 4 * 4


def test_clusters_are_videos_or_stretches_of_few_videos(films):
    asked = questions.held_out_questions(open_reader(films, split="heldout"), max_frames=8)
    clusters, meaning = questions.clusters_of(asked)
    assert meaning == "stretch of 7 s of a video"
    assert clusters == [("v1", 0)] * 3 + [("v2", 0)] * 2
    many = [
        questions.HeldOut(
            q.trial_id,
            q.question_id,
            q.sample.model_copy(update={"video_id": f"v{i}"}),
            q.kind,
            q.source,
            q.shown,
        )
        for i, q in enumerate(asked * 5)
    ]
    assert questions.clusters_of(many)[1] == "video"


def test_batches_bound_the_frames_in_memory(films):
    asked = questions.held_out_questions(open_reader(films, split="heldout"), max_frames=8)
    assert [len(batch) for batch in questions.batches(asked, max_frames=16)] == [2, 2, 1]
    assert [len(batch) for batch in questions.batches(asked, max_frames=3)] == [1] * 5


def test_frames_of_another_size_are_refused(films):
    reader = open_reader(films, split="heldout")
    with pytest.raises(InputError, match=r"data\.frames\.size=64"):
        questions.read_frames(reader, questions.held_out_questions(reader, max_frames=4), size=64)


def test_a_data_set_without_questions_is_refused(films):
    reader = open_reader(films, split="heldout")
    none = type(reader)(reader.storage, open_reader(films).index.select("train").select("heldout"))
    with pytest.raises(InputError, match="split heldout"):
        qa.run(
            tiny_model(TOKENIZER), TOKENIZER, CONFIG, reader=none, training=None,
            log=TrialLog(None, weight_digest="w"),
        )  # fmt: skip


def test_a_limit_takes_the_same_random_questions_every_time(films):
    found = questions.held_out_questions(open_reader(films, split="heldout"), max_frames=6)
    chosen = qa.choose(found, 3)
    assert len(chosen) == 3
    assert chosen == [question for question in found if question in chosen]
    assert {question.trial_id for question in qa.choose(list(reversed(found)), 3)} == {
        question.trial_id for question in chosen
    }
    assert qa.choose(found, None) == qa.choose(found, 99) == list(found)
