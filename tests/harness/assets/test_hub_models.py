"""Models and data in the hub's cache layout, offline: Llama-, Qwen- and GPT-2-shaped, with their tokenizer files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import assets
from harness.assets import hub
from harness.assets.models import check_model
from harness.cell import run_cell
from harness.contracts import HarnessError
from harness.planning.cells import Cell
from harness.planning.shapes import shape_of
from harness.settings.profiles import load_profile, resolve
from harness.training.prompts import bind_template, build_prompts, encode_prompt
from tests.helpers.hub_cache import COMMIT, HubCache, StandInHub, write_model, write_tokenizer

ROW = {
    "llama": "meta-llama/Llama-3.2-1B-Instruct",
    "qwen": "Qwen/Qwen2.5-0.5B-Instruct",
    "gpt2": "openai-community/gpt2",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    made = HubCache(tmp_path_factory.mktemp("hub"))
    for family, name in ROW.items():
        made.model(name, family)
    articles = [
        f"Article {i}. The river {chr(97 + i)} flows north and the town of {chr(97 + i)} lies there." for i in range(20)
    ]
    made.data("wikimedia/wikipedia", {"20231101.en/train-00000-of-00041.parquet": articles})
    passages = [f"La casa del sol y de la luna {i} es la casa grande" for i in range(6)]
    made.data(
        "Tristan/lambada_openai_custom_splits",
        {
            f"{code}/{split}-00000-of-00001.parquet": [f"{code} {text}" for text in passages]
            for code in ("de", "es")
            for split in ("train", "validation", "test")
        },
    )
    return made


@pytest.fixture(autouse=True)
def offline(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache.folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for cached in (assets.resolve, assets.check_model, shape_of):
        cached.cache_clear()
    yield
    for cached in (assets.resolve, assets.check_model, shape_of):
        cached.cache_clear()


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}", "@main"])
@pytest.mark.parametrize("family", ROW)
def test_models_come_from_the_cache_by_branch_or_commit(family, revision):
    ref = ROW[family] + revision
    path = assets.resolve(ref)
    assert hub.commit(path) == COMMIT and hub.cached(ref) == path
    assets.check_model(ref)
    model = assets.load_model(ref)
    assert model.config.model_type == {"qwen": "qwen2"}.get(family, family)
    assert shape_of(ref).hidden == 16  # of the model that is here, not of the table


def test_an_untied_head_is_a_copy_of_the_embeddings():
    model = assets.load_model(ROW["gpt2"], untie_head=True)
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head is not table and head.tolist() == table.tolist()


def test_a_head_of_its_own_is_kept(tmp_path):
    model = assets.load_model(ROW["gpt2"], untie_head=True)
    model.get_output_embeddings().weight.data += 1.0
    model.save_pretrained(tmp_path)
    again = assets.load_model(str(tmp_path), untie_head=True).get_output_embeddings().weight
    assert again.tolist() == model.get_output_embeddings().weight.tolist()


@pytest.mark.parametrize(
    ("family", "opening", "closing"),
    [
        ("llama", "<|begin_of_text|><|start_header_id|>system", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("qwen", "<|im_start|>system", "<|im_start|>assistant\n"),
        ("gpt2", "Say: ", "text"),
    ],
)
def test_prompts_follow_the_generators_chat_template(family, opening, closing):
    tokenizer = assets.load_tokenizer(ROW[family])
    settings = resolve(load_profile("tiny"), "", "", {"generator.prompt": "Say: <article>"}).generator
    ids = encode_prompt(tokenizer, build_prompts(tokenizer, settings, ["A short text"])[0])
    text = tokenizer.decode(ids)
    assert text.startswith(opening) and text.endswith(closing) and "Say: A short text" in text
    if tokenizer.bos_token_id is not None and family == "llama":
        assert ids.count(tokenizer.bos_token_id) == 1  # the template's own, none on top


def test_the_date_of_llamas_template_is_a_setting():
    tokenizer = assets.load_tokenizer(ROW["llama"])
    values = resolve(load_profile("paper"), "uuid", "").generator.template_values
    settings = resolve(load_profile("tiny"), "", "").generator
    today = tokenizer.decode(encode_prompt(tokenizer, build_prompts(tokenizer, settings, ["x"])[0]))
    bind_template(tokenizer, values)
    fixed = tokenizer.decode(encode_prompt(tokenizer, build_prompts(tokenizer, settings, ["x"])[0]))
    assert "Today Date: 26 Jul 2024" in fixed and today != fixed


@pytest.mark.parametrize(
    ("family", "bos", "eos", "pad"),
    [
        ("llama", "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
        ("qwen", None, "<|im_end|>", "<|endoftext|>"),
        ("gpt2", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    ],
)
def test_special_tokens_are_each_familys_own(family, bos, eos, pad):
    tokenizer = assets.load_tokenizer(ROW[family])
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (bos, eos, pad)


@pytest.mark.parametrize("task", ["lambada_es", "67", "uuid"])
def test_the_target_reads_texts_with_its_own_tokenizer(task):
    """As the paper profile says: Llama's beginning-of-text token first, none for GPT-2."""
    from harness.training.inner import InnerTrainer

    settings = resolve(load_profile("paper"), task, "adam_metagrad")
    name = settings.target.model.partition("@")[0]
    tokenizer = assets.load_tokenizer(name)
    ids = InnerTrainer(assets.load_model(name), tokenizer, settings.inner).encode("the river")
    plain = tokenizer("the river", add_special_tokens=False)["input_ids"]
    assert ids == ([tokenizer.bos_token_id, *plain] if task != "67" else plain)
    assert ids == tokenizer.encode("the river")  # which is how the authors tokenise


def test_data_by_file_and_by_configuration():
    articles = "wikimedia/wikipedia/20231101.en/train-00000-of-00041.parquet"
    assert len(assets.texts(articles, split=None)) == 20
    for code in ("de", "es"):
        ref = f"Tristan/lambada_openai_custom_splits/{code}"
        found = assets.texts(ref, split="validation")
        assert len(found) == 6 and all(text.startswith(code) for text in found)
    prints = [assets.fingerprint(f"Tristan/lambada_openai_custom_splits/{code}", data=True) for code in ("de", "es")]
    assert prints[0] != prints[1]
    with pytest.raises(HarnessError, match="HF_HUB_OFFLINE|cached|fetched"):
        assets.texts("wikimedia/wikipedia/20231101.en/train-00001-of-00041.parquet", split=None)


QUICK = {
    "grpo.steps": 2,
    "grpo.prompts_per_step": 2,
    "grpo.rollouts_per_prompt": 2,
    "grpo.updates_per_step": 1,
    "generator.max_prompt_tokens": 256,
    "generator.max_completion_tokens": 8,
    "generator.prompt": "Say: <article>",
    "generator.batch": 3,
    "inner.max_tokens": 12,
    "validation.prompts": 4,
    "validation.every": 2,
    "data.article_count": 8,
}


def quick_cell(profile: str, task: str, reward: str, tmp_path: Path, **more) -> dict:
    given = QUICK | {key.replace("__", "."): value for key, value in more.items()}
    settings = resolve(load_profile(profile), task, reward, given)
    settings = settings.model_copy(
        update={  # the cache's commit is the tests'
            "generator": settings.generator.model_copy(update={"model": settings.generator.model.partition("@")[0]}),
            "target": settings.target.model_copy(update={"model": settings.target.model.partition("@")[0]}),
            "data": settings.data.model_copy(update={"articles": settings.data.articles.partition("@")[0]}),
        }
    )
    cell = Cell(profile, task, reward, 0, settings, given=given)
    record = run_cell(cell, tmp_path, lambda event: None)
    assert (record.status, record.reason) == ("done", ""), (tmp_path / "error.txt", record.reason)
    return json.loads(next(tmp_path.rglob("cell.json")).read_text())


JUDGE = {"task__options__language_id": "embedded:language_id"}


@pytest.mark.parametrize(
    ("profile", "task", "reward", "more"),
    [
        ("paper", "lambada_es", "adam_metagrad", JUDGE),
        ("paper", "lambada_es", "levenshtein", JUDGE),
        ("paper", "67", "adam_metagrad", {"inner__steps": 2, "validation__inner_steps": 2}),
        ("paper", "uuid", "naive", {}),
        ("small", "uuid", "adam_metagrad", {}),
        ("small", "norm", "sgd_metagrad", {"inner__steps": 2, "validation__inner_steps": 2}),
    ],
)
def test_a_cell_of_each_profile_runs_on_them(profile, task, reward, more, tmp_path):
    record = quick_cell(profile, task, reward, tmp_path, **more)
    assert record["steps_done"] == 2 and record["rollouts"] == 8


# ------------------------------------------------------------------------------------------------- weights that fit


def renamed(tensors, names):
    return {("renamed." + name if name in names else name): value for name, value in tensors.items()}


CHANGES = {
    "one missing": (lambda t, name: {key: value for key, value in t.items() if key != name}, "lacks"),
    "one renamed": (lambda t, name: renamed(t, {name}), "lacks"),
    "all renamed": (lambda t, name: renamed(t, set(t)), "lacks"),
    "one more": (
        lambda t, name: t | {"model.extra.weight": t[name].clone()},
        "has beyond the architecture's model.extra",
    ),
    "another shape": (lambda t, name: t | {name: t[name][:-1].clone()}, "has in another shape"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen"])
def test_weights_that_do_not_fit_are_an_error_before_the_run(kind, change, make_model, make_tokenizer, tmp_path):
    """transformers fills what is missing with random numbers and goes on."""
    from safetensors.torch import load_file, save_file

    make_model(kind).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assets.check_model(str(tmp_path))
    for untied in (False, True):
        assets.load_model(str(tmp_path), untie_head=untied)
    check_model.cache_clear()
    path, (edit, words) = tmp_path / "model.safetensors", CHANGES[change]
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(("mlp.c_fc.weight", "mlp.up_proj.weight")))
    save_file(edit(tensors, name), path, metadata={"format": "pt"})
    for look in (assets.check_model, assets.load_model, lambda ref: assets.load_model(ref, untie_head=True)):
        with pytest.raises(HarnessError, match=f"do not fit its config.json: .*{words}"):
            look(str(tmp_path))


def test_a_head_that_is_tied_nowhere_may_not_be_missing(make_model, make_tokenizer, tmp_path):
    from safetensors.torch import load_file, save_file

    make_model("llama", tied=False).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HarnessError, match="lacks lm_head.weight"):
        assets.check_model(str(tmp_path))


# ------------------------------------------------------------------------------------------- from a hub that answers


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A hub on this machine with a GPT-2 under "some/model", an empty cache, and no token."""
    from huggingface_hub import constants

    made = StandInHub()
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder, "gpt2", write_tokenizer(folder, "gpt2"))
    made.add("models", "some/model", folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    address = made.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    hub.check_reachable.cache_clear()
    yield made
    made.close()
    hub.check_reachable.cache_clear()


def test_a_model_comes_from_the_hub_once_and_works_offline(stand_in, monkeypatch):
    from huggingface_hub import constants

    path = hub.model("some/model")
    assert hub.commit(path) == COMMIT and hub.cached("some/model") == path
    assert any("model.safetensors" in line for line in stand_in.asked)
    assets.check_model("some/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(stand_in.asked)
    assert hub.model("some/model") == path and len(stand_in.asked) == before


@pytest.mark.parametrize(
    ("gate", "token", "words"),
    [
        ("token", None, "is gated: accept its licence at https://huggingface.co/some/model, then set HF_TOKEN"),
        ("licence", "hf_x", "is gated and your token may not read it"),
    ],
)
def test_a_gate_says_what_it_wants(gate, token, words, stand_in, monkeypatch):
    stand_in.gate = gate
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(HarnessError, match=words):
        hub.model("some/model")


@pytest.mark.parametrize(
    ("ref", "words"),
    [("some/other", "check the spelling"), ("some/model@v9", "no such revision"), ("some/model/x", "is no model id")],
)
def test_what_the_hub_does_not_have_is_said(ref, words, stand_in):
    with pytest.raises(HarnessError, match=words):
        hub.model(ref)


def test_a_download_that_breaks_off_is_not_taken_for_a_model(stand_in, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    stand_in.broken = "model.safetensors"
    with pytest.raises(HarnessError, match="broke off and left out the rest .*fetch` with a network, it goes on"):
        hub.model("some/model")
    assert hub.cached("some/model") is None, "else a plan says that it is here"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HarnessError, match="broke off"):
        hub.model("some/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    stand_in.broken = ""
    hub.model("some/model")
    assets.check_model("some/model")


def test_a_missing_shard_is_named(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    index = {"weight_map": {"x": "model-1-of-2.safetensors", "y": "model-2-of-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-1-of-2.safetensors").write_bytes(b"")
    assert hub.left_out(snapshot) == ["model-2-of-2.safetensors"]
    (snapshot / "model-2-of-2.safetensors").write_bytes(b"")
    assert hub.left_out(snapshot) == []


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_what_is_no_causal_language_model_is_refused(kind, make_tokenizer, tmp_path):
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    if kind == "bert":
        small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        model = BertForMaskedLM(BertConfig(vocab_size=260, **small))
    else:
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=260, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
        )
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match="does not write a text from left to right; name a causal language model"):
        assets.check_model(str(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(make_model, make_tokenizer, tmp_path):
    """On a GPU an id without an embedding ends the whole process."""
    make_model("gpt2", vocab=259).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assets.check_model(str(tmp_path))
    check_model.cache_clear()
    make_model("gpt2", vocab=200).save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match="token ids up to 258, its model has embeddings for 200"):
        assets.check_model(str(tmp_path))


@pytest.mark.parametrize("left", ["no padding", "nothing"])
def test_a_tokenizer_without_padding_takes_the_end_of_text_token(left, make_model, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    if left == "nothing":
        tokenizer.eos_token = None
    make_model("gpt2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    if left == "nothing":
        with pytest.raises(HarnessError, match="neither a padding nor an end-of-text token"):
            assets.check_model(str(tmp_path))
    else:
        assert assets.load_tokenizer(str(tmp_path)).pad_token == "<eos>"


def test_generator_and_target_may_have_other_vocabularies(tmp_path):
    """Texts go from one to the other, no token ids."""
    more = {"generator__model": ROW["llama"], "target__model": ROW["gpt2"], "inner__prepend_bos": False}
    assert quick_cell("paper", "uuid", "adam_metagrad", tmp_path, **more)["steps_done"] == 2
