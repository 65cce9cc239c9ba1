"""Checkpoints in the published layout: there and back, read by others, refused when they are not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    Qwen3Config,
    SiglipVisionModel,
)

from longvila.config.model import LlmConfig, ProjectorConfig
from longvila.errors import ConfigError, InputError
from longvila.model import (
    LongVila,
    build_model,
    checkpoint_digest,
    compute_digest,
    export_checkpoint,
    load_checkpoint,
    set_rope_theta,
)
from longvila.text import build_word_tokenizer
from tests.model.helpers import one_process_plan, random_frames, random_ids, run, tiny_config, tiny_model
from tests.text.tokenizers import chatml_tokenizer, word_tokenizer


@pytest.fixture(scope="module")
def model() -> LongVila:
    return build_model(tiny_config(), vocab_size=len(word_tokenizer()), seed=0)


@pytest.fixture
def exported(model: LongVila, tmp_path: Path) -> Path:
    export_checkpoint(
        model, word_tokenizer(), tmp_path / "out", stage_info={"stage": "align", "max_frames": 8}
    )
    return tmp_path / "out"


def assert_same(first: LongVila, second: LongVila) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("kind", ["mlp_downsample", "mlp_downsample_3x3", "linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_identical(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    projector = ProjectorConfig.model_validate({"kind": kind, "output_norm": kind == "mlp_downsample"})
    config = tiny_config(projector=projector, frame_separator="\n")
    model = build_model(config, vocab_size=len(word_tokenizer()), seed=1, dtype=dtype)
    set_rope_theta(model, 6400.0, 512)
    digest = export_checkpoint(model, word_tokenizer(), tmp_path / "out", stage_info={"stage": "align"})
    loaded, tokenizer, info = load_checkpoint(tmp_path / "out")
    assert_same(model, loaded)
    assert (loaded.select_layer, loaded.frame_separator, loaded.tokens_per_frame) == (
        -2,
        "\n",
        config.tokens_per_frame,
    )
    assert loaded.llm.config.rope_parameters["rope_theta"] == 6400.0
    assert loaded.llm.config.max_position_embeddings == tokenizer.model_max_length == 512
    assert tokenizer.get_vocab() == word_tokenizer().get_vocab()
    assert info["stage_info"] == {"stage": "align"}
    assert info["weights_sha256"] == digest == compute_digest(tmp_path / "out")


def test_the_loaded_model_computes_the_same(model: LongVila, exported: Path) -> None:
    plan = one_process_plan()
    ids, frames = random_ids(plan) % len(word_tokenizer()), random_frames(2)
    with torch.no_grad():
        expected = run(model, plan, ids, frames)
        assert torch.equal(run(load_checkpoint(exported).model, plan, ids, frames), expected)


def test_plain_transformers_reads_the_parts(model: LongVila, exported: Path) -> None:
    llm = Qwen2ForCausalLM.from_pretrained(exported / "llm")
    tower, report = SiglipVisionModel.from_pretrained(exported / "vision_tower", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, value in model.llm.state_dict().items():
        assert torch.equal(llm.state_dict()[name], value), name
    for name, value in model.vision_tower.state_dict().items():
        assert torch.equal(tower.state_dict()[name], value), name


def test_names_are_those_that_the_published_loader_reads(exported: Path) -> None:
    """Reference: VILA's builder. Transformers 4 names the tower ``vision_model.*``."""
    with safe_open(exported / "vision_tower" / "model.safetensors", "pt") as tensors:
        assert all(name.startswith("vision_model.") for name in tensors.keys())  # noqa: SIM118
    projector = load_file(exported / "mm_projector" / "model.safetensors")
    assert {"layers.1.weight", "layers.2.weight", "layers.4.bias"} <= projector.keys()
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= load_file(
        exported / "llm" / "model.safetensors"
    ).keys()
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["LlavaLlamaModel"]
    assert config["model_type"] == "llava_llama"
    assert (config["mm_vision_select_layer"], config["mm_vision_select_feature"]) == (-2, "cls_patch")
    assert (config["hidden_size"], config["mm_hidden_size"]) == (32, 24)
    assert config["num_video_frames"] == 8
    assert json.loads(config["video_encoder"])["end_tokens"] is None
    parts = ("llm_cfg", "vision_tower_cfg", "mm_projector_cfg")
    assert [config[part]["architectures"][0] for part in parts] == [
        "Qwen2ForCausalLM",
        "SiglipVisionModel",
        "MultimodalProjector",
    ]
    assert (exported / "vision_tower" / "preprocessor_config.json").is_file()
    llm = json.loads((exported / "llm" / "config.json").read_text())
    assert llm["rope_theta"] == llm["rope_parameters"]["rope_theta"] == 100.0
    assert llm["tokenizer_padding_side"] == "right"
    assert llm["torch_dtype"] == "float32"
    tokenizer = json.loads((exported / "llm" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["chat_template"]
    assert {"eos_token", "bos_token", "pad_token"} <= tokenizer.keys()


def test_a_chatml_tokenizer_survives(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    model = build_model(tiny_config(), vocab_size=len(tokenizer), seed=0)
    export_checkpoint(model, tokenizer, tmp_path / "out", stage_info={})
    text = "<|im_start|>user\nwhat is on the <image> card?<|im_end|>"
    for again in (
        load_checkpoint(tmp_path / "out").tokenizer,
        AutoTokenizer.from_pretrained(tmp_path / "out" / "llm"),
    ):
        assert again(text).input_ids == tokenizer(text).input_ids
        assert again.chat_template == tokenizer.chat_template
        assert again.eos_token == "<|im_end|>"


def test_large_parts_are_sharded(model: LongVila, tmp_path: Path) -> None:
    digest = export_checkpoint(
        model, word_tokenizer(), tmp_path / "out", stage_info={}, max_shard_size="20KB"
    )
    assert len(list((tmp_path / "out" / "llm").glob("*.safetensors"))) > 1
    assert_same(model, load_checkpoint(tmp_path / "out").model)
    assert compute_digest(tmp_path / "out") == digest
    next((tmp_path / "out" / "llm").glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"lacks .*Copy the whole folder again"):
        load_checkpoint(tmp_path / "out")


def test_tied_embeddings_are_written_once(tmp_path: Path) -> None:
    llm = LlmConfig(
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        tie_word_embeddings=True,
    )
    model = build_model(tiny_config(llm=llm), vocab_size=len(word_tokenizer()), seed=0)
    export_checkpoint(model, word_tokenizer(), tmp_path / "out", stage_info={})
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "llm" / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "out").model
    assert loaded.lm_head.get_parameter("weight") is loaded.llm.get_input_embeddings().get_parameter("weight")


def test_an_older_checkpoint_is_replaced_and_no_draft_is_left(model: LongVila, exported: Path) -> None:
    before = checkpoint_digest(exported)
    other = build_model(tiny_config(), vocab_size=len(word_tokenizer()), seed=5)
    digest = export_checkpoint(other, word_tokenizer(), exported, stage_info={})
    assert checkpoint_digest(exported) == digest != before
    assert [path.name for path in exported.parent.iterdir()] == ["out"]


def test_equal_weights_make_equal_bytes(model: LongVila, exported: Path, tmp_path: Path) -> None:
    info = {"stage": "align", "max_frames": 8}
    export_checkpoint(model, word_tokenizer(), tmp_path / "again", stage_info=info)
    files = sorted(path.relative_to(exported) for path in exported.rglob("*") if path.is_file())
    assert len(files) >= 10
    for file in files:
        assert (exported / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_published_checkpoint_without_our_notes(model: LongVila, exported: Path) -> None:
    """VILA's own: no ``longvila`` key, the separator unsaid, the 2x2_fix name of the same projector."""
    edit(exported / "config.json", longvila=None, video_encoder=None)
    edit(exported / "mm_projector" / "config.json", mm_projector_type="mlp_downsample_2x2_fix")
    loaded, _, info = load_checkpoint(exported)
    assert_same(model, loaded)
    assert (info["stage_info"], info["weights_sha256"], loaded.frame_separator) == ({}, "", "\n")
    assert checkpoint_digest(exported) == compute_digest(exported)


def test_a_tower_without_its_pooling_head_is_enough(model: LongVila, exported: Path) -> None:
    """Features never reach the head; a published tower may say that it has one and come without."""
    edit(exported / "vision_tower" / "config.json", vision_use_head=True)
    loaded = load_checkpoint(exported).model
    frames = random_frames(2)
    with torch.no_grad():
        assert torch.equal(loaded.encode_frames(frames), model.encode_frames(frames))


def test_stages_start_from_an_exported_part(model: LongVila, exported: Path) -> None:
    """``vision.pretrained`` and ``llm.pretrained`` take the parts' folders."""
    config = tiny_config()
    vision = config.vision.model_copy(update={"pretrained": str(exported / "vision_tower")})
    llm = config.llm.model_copy(update={"pretrained": str(exported / "llm")})
    again = build_model(tiny_config(vision=vision, llm=llm), vocab_size=len(word_tokenizer()) + 3, seed=9)
    for name, value in model.vision_tower.state_dict().items():
        assert torch.equal(again.vision_tower.state_dict()[name], value), name
    rows = len(word_tokenizer())
    assert again.lm_head.get_parameter("weight").shape[0] == rows + 3
    assert torch.equal(again.lm_head.get_parameter("weight")[:rows], model.lm_head.get_parameter("weight"))
    wrong = vision.model_copy(update={"image_size": 64})
    with pytest.raises(Exception, match=r"Set vision\.image_size=32"):
        build_model(tiny_config(vision=wrong), vocab_size=30, seed=0)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def lose_a_layer(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: shutil.rmtree(out), "no checkpoint folder"),
        (lambda out: shutil.rmtree(out / "mm_projector"), "lacks .*mm_projector"),
        (lambda out: (out / "llm" / "model.safetensors").unlink(), "lacks .*safetensors"),
        (lambda out: (out / "config.json").unlink(), r"lacks .*config\.json"),
        (lambda out: (out / "llm" / "config.json").unlink(), r"lacks .*llm/config\.json"),
        (lambda out: (out / "config.json").write_text('{"llm_cfg": '), "is not JSON"),
        (lambda out: edit(out / "config.json", mm_vision_select_layer=None), "lacks mm_vision_select_layer"),
        (lambda out: edit(out / "config.json", model_dtype="torch.int9"), "bfloat16"),
        (lambda out: cut(out / "llm" / "model.safetensors"), "llm.*copy it again"),
        (lambda out: cut(out / "mm_projector" / "model.safetensors"), "cut off or damaged"),
        (lambda out: lose_a_layer(out / "llm" / "model.safetensors"), "do not fit its config.*up_proj"),
        (lambda out: edit(out / "llm" / "config.json", hidden_size=64), "llm.*copy it again|do not fit"),
        (
            lambda out: edit(out / "mm_projector" / "config.json", mm_projector_type="resampler"),
            "Supported are",
        ),
        (lambda out: edit(out / "mm_projector" / "config.json", output_norm=False), "Copy all three parts"),
        (lambda out: (out / "llm" / "tokenizer.json").unlink(), "holds no tokenizer"),
    ],
)
def test_what_is_not_whole_is_refused(exported: Path, damage, message: str) -> None:
    damage(exported)
    with pytest.raises(InputError, match=message):
        load_checkpoint(exported)


def test_a_tokenizer_of_another_model_is_refused(exported: Path) -> None:
    larger: PreTrainedTokenizerFast = build_word_tokenizer([f"word{n}" for n in range(100)])
    larger.save_pretrained(exported / "llm")
    with pytest.raises(InputError, match=r"ids up to \d+, but the LLM has 23 embeddings"):
        load_checkpoint(exported)


def test_a_model_that_has_run_exports_the_same(model: LongVila, exported: Path, tmp_path: Path) -> None:
    """The attention that it ran with is no property of the weights."""
    used = load_checkpoint(exported).model
    plan = one_process_plan()
    run(used, plan, random_ids(plan) % len(word_tokenizer()), random_frames(2))
    export_checkpoint(
        used, word_tokenizer(), tmp_path / "used", stage_info={"stage": "align", "max_frames": 8}
    )
    for name in ("llm", "vision_tower"):
        ours = (tmp_path / "used" / name / "config.json").read_text()
        assert ours == (exported / name / "config.json").read_text()
        assert "mmsp" not in ours


@pytest.mark.parametrize("shape", [LlamaConfig, Qwen3Config])
def test_any_decoder_goes_through(tmp_path: Path, shape: type) -> None:
    settings = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = shape(
        **settings,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=40,
        max_position_embeddings=64,
        pad_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "llm")
    llm = LlmConfig(pretrained=str(tmp_path / "llm"))
    model = build_model(tiny_config(llm=llm), vocab_size=len(word_tokenizer()), seed=0)
    set_rope_theta(model, 5000.0, 128)
    plan = one_process_plan()
    ids, frames = random_ids(plan) % len(word_tokenizer()), random_frames(2)
    export_checkpoint(model, word_tokenizer(), tmp_path / "out", stage_info={})
    loaded = load_checkpoint(tmp_path / "out").model
    with torch.no_grad():
        assert torch.equal(run(loaded, plan, ids, frames), run(model, plan, ids, frames))
    assert type(loaded.llm).__name__ == type(model.llm).__name__ != "Qwen2ForCausalLM"


def test_a_decoder_whose_attention_cannot_be_replaced_is_refused(tmp_path: Path) -> None:
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    AutoModelForCausalLM.from_config(FalconConfig(**settings)).save_pretrained(tmp_path / "llm")
    config = tiny_config(llm=LlmConfig(pretrained=str(tmp_path / "llm")))
    with pytest.raises(ConfigError, match="FalconForCausalLM does not use transformers' attention interface"):
        build_model(config, vocab_size=20, seed=0)


def test_a_name_that_misleads_the_published_loader_is_told(model: LongVila, tmp_path: Path, caplog) -> None:
    export_checkpoint(model, word_tokenizer(), tmp_path / "my-Llama-3-run", stage_info={})
    assert "Rename the folder" in caplog.text


def test_a_killed_export_leaves_nothing_that_stays(model: LongVila, exported: Path) -> None:
    (exported.parent / ".out.12345.draft" / "llm").mkdir(parents=True)
    (exported.parent / ".out.12345.old").mkdir()
    export_checkpoint(model, word_tokenizer(), exported, stage_info={})
    assert [path.name for path in exported.parent.iterdir()] == ["out"]


def test_a_failed_export_leaves_the_old_one(model: LongVila, exported: Path) -> None:
    before = checkpoint_digest(exported)
    with pytest.raises(TypeError):
        export_checkpoint(model, word_tokenizer(), exported, stage_info={"bad": object()})
    assert checkpoint_digest(exported) == before
    assert load_checkpoint(exported).info["stage_info"]["stage"] == "align"


def test_digest_sees_one_bit(model: LongVila, exported: Path) -> None:
    path = exported / "mm_projector" / "model.safetensors"
    tensors = load_file(path)
    tensors["layers.4.bias"][0] += 1e-6
    save_file(tensors, path)
    assert compute_digest(exported) != checkpoint_digest(exported)
    assert tiny_model().llm is not model.llm
