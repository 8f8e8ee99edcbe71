"""`67` and `qr`: Phi against a loop and finite differences, decoding, the code reader, patterns and their errors."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import HarnessError, TaskContext
from harness.registry import TASKS
from tasks import _pattern
from tasks._head import head_parameter

SHAPES = [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False)]
HEADS = {
    ("gpt2", True): "transformer.wte.weight",
    ("llama", True): "model.embed_tokens.weight",
    ("gpt2", False): "lm_head.weight",
    ("llama", False): "lm_head.weight",
}
ROLLOUTS = ["one text", "another text"]


def make(name: str, **options):
    return TASKS.get(name).factory(TaskContext(options=options))


def drawn(model, signs: np.ndarray, step: float = 1e-3):
    """A change of the head that adds step * signs[i, j] at token j, hidden dimension i, entry by entry."""
    name = head_parameter(model)

    def change(params):
        for hidden in range(signs.shape[0]):
            for token in range(signs.shape[1]):
                params[name][token, hidden] += step * float(signs[hidden, token])

    return change


def decode(name: str, model, chosen_training, signs: np.ndarray, **options):
    return make(name, **options).evaluate(ROLLOUTS, chosen_training(model, change=drawn(model, signs)))


# ------------------------------------------------------------------------------------------------------------------ Phi


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_the_head_is_found_tied_or_not(wide_model, family, tied):
    assert head_parameter(wide_model(family, tied)) == HEADS[family, tied]


def test_a_model_without_a_head_is_refused():
    from transformers import GPT2Config, GPT2Model

    with pytest.raises(HarnessError, match="no LM head"):
        head_parameter(GPT2Model(GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1)))


def slow_phi(task, head_before, head_after) -> float:
    total, rows = 0.0, task.picture.tolist()
    for hidden, row in enumerate(rows):
        for token, wanted in enumerate(row):
            moved = float(head_after[token][hidden]) - float(head_before[token][hidden])
            total -= math.log(1 + math.exp(-task.scale * wanted * moved))
    return total / (len(rows) * len(rows[0]))


@pytest.mark.parametrize("name", ["67", "qr"])
@pytest.mark.parametrize(("family", "tied"), SHAPES)
@pytest.mark.parametrize("scale", [20.0, 3.0])
def test_phi_is_the_double_loop(wide_model, chosen_training, name, family, tied, scale):
    model = wide_model(family, tied)
    task = make(name, **{"lambda": scale})
    phi = task.metric(chosen_training(model))
    head = head_parameter(model)
    params = {key: value.detach() + 0.05 * torch.randn_like(value) for key, value in model.named_parameters()}
    expected = slow_phi(task, dict(model.named_parameters())[head].tolist(), params[head].tolist())
    assert float(phi(params)) == pytest.approx(expected, rel=1e-12)
    untrained = phi(dict(model.named_parameters())).detach()
    assert float(untrained) == pytest.approx(-math.log(2), rel=1e-12)


def test_the_gradient_is_that_of_finite_differences_and_lives_on_the_patch(wide_model, chosen_training):
    model = wide_model("gpt2", True)
    phi = make("67").metric(chosen_training(model))
    head = head_parameter(model)
    params = {key: value.detach() + 0.02 * torch.randn_like(value) for key, value in model.named_parameters()}
    leaf = params[head].requires_grad_()
    gradient = torch.autograd.grad(phi(params), leaf)[0]
    numeric, step = torch.zeros_like(leaf), 1e-6
    for token in range(9):
        for hidden in range(9):
            up, down = leaf.detach().clone(), leaf.detach().clone()
            up[token, hidden] += step
            down[token, hidden] -= step
            numeric[token, hidden] = (phi(params | {head: up}) - phi(params | {head: down})) / (2 * step)
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-9)
    assert gradient[:7, :6].ne(0).all()
    gradient[:7, :6] = 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize("first", [0, 3, 9])
def test_the_first_token_moves_the_patch(wide_model, chosen_training, first):
    """Phi of the patch at `first` is Phi at 0 of a head whose token rows moved up by `first`."""
    model = wide_model("gpt2", False)
    phi = make("67", first_token=first).metric(chosen_training(model))
    head = head_parameter(model)
    before = dict(model.named_parameters())
    params = {name: value.detach() + 0.02 * torch.randn_like(value) for name, value in before.items()}
    expected = slow_phi(make("67"), before[head].tolist()[first:], params[head].tolist()[first:])
    assert float(phi(params)) == pytest.approx(expected, rel=1e-12)
    leaf = params[head].requires_grad_()
    moved = torch.autograd.grad(phi(params), leaf)[0].ne(0)
    assert moved[first : first + 7, :6].all() and moved.sum() == 42


def test_a_first_token_beyond_the_head_is_refused(wide_model, chosen_training):
    model = wide_model("gpt2", False)
    last = model.lm_head.weight.shape[0] - 7
    make("67", first_token=last).metric(chosen_training(model))
    with pytest.raises(HarnessError, match=f"first at token {last + 1}"):
        make("67", first_token=last + 1).metric(chosen_training(model))
    with pytest.raises(HarnessError, match="first_token must be a whole number of at least 0"):
        make("67", first_token=-1)


def test_phi_keeps_the_untrained_head_it_was_made_with(wide_model, chosen_training):
    model = wide_model("gpt2", False)
    phi = make("67").metric(chosen_training(model))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        model.lm_head.weight += 1.0
    assert float(phi(before)) == pytest.approx(-math.log(2), rel=1e-12)


# ------------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("name", ["67", "qr"])
@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_a_drawn_picture_decodes_to_itself(wide_model, chosen_training, name, family, tied):
    task = make(name)
    values = decode(name, wide_model(family, tied), chosen_training, task.picture).values
    assert values["pixel_accuracy"] == 1.0
    assert values["margin"] == pytest.approx(1e-3, rel=1e-9)
    assert values["delta_magnitude"] == pytest.approx(1e-3, rel=1e-9)
    assert values["phi"] == pytest.approx(-math.log1p(math.exp(-20 * 1e-3)), rel=1e-9)


@pytest.mark.parametrize("name", ["67", "qr"])
def test_every_value_is_declared_and_every_measure_given(wide_model, chosen_training, name):
    task = make(name)
    found = task.evaluate(ROLLOUTS, chosen_training(wide_model()))
    assert set(found.values) == {task.headline.name, *(measure.name for measure in task.measures)}


@given(flipped=st.sets(st.integers(0, 41)))
def test_flipped_pixels_are_counted(wide_model, chosen_training, flipped):
    signs = make("67").picture.copy()
    signs.reshape(-1)[list(flipped)] *= -1
    values = decode("67", wide_model(), chosen_training, signs).values
    assert values["pixel_accuracy"] == pytest.approx(1 - len(flipped) / 42, abs=1e-12)
    assert values["margin"] == pytest.approx(1e-3 * (1 - 2 * len(flipped) / 42), abs=1e-12)


def test_a_transposed_picture_is_not_the_picture(wide_model, chosen_training):
    """Drawn with rows as token ids, as reading a (vocab, hidden) head without the transpose would want it."""
    model, task = wide_model(), make("67")
    name = head_parameter(model)

    def change(params):
        params[name][:6, :7] += torch.from_numpy(task.picture).double()

    values = task.evaluate(ROLLOUTS, chosen_training(model, change=change)).values
    assert values["pixel_accuracy"] < 0.9


def test_an_entry_that_did_not_move_is_wrong(wide_model, chosen_training):
    for name in ("67", "qr"):
        found = make(name).evaluate(ROLLOUTS, chosen_training(wide_model()))
        assert found.values["pixel_accuracy"] == 0.0
        assert found.values.get("readable", 0.0) == 0.0
    signs = make("67").picture.copy()
    signs[0, 0] = 0
    assert decode("67", wide_model(), chosen_training, signs).values["pixel_accuracy"] == pytest.approx(41 / 42)


def test_the_paper_s_67():
    rows = make("67").picture.tolist()
    assert len(rows) == 6 and all(len(row) == 7 for row in rows)
    assert rows[0] == [1, 1, 1, 1, -1, -1, -1] and rows[4] == [-1, 1, -1, 1, 1, 1, -1]


def test_the_target_is_trained_on_the_rollouts_and_left_as_it_is(wide_model, chosen_training):
    model = wide_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inner = chosen_training(model, change=drawn(model, make("67").picture))
    make("67").evaluate(ROLLOUTS, inner)
    assert inner.trained_on == ROLLOUTS
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])


def test_no_rollouts_is_an_error(wide_model, chosen_training):
    with pytest.raises(ValueError, match="at least one"):
        make("67").evaluate([], chosen_training(wide_model()))


# ------------------------------------------------------------------------------------------------------------------- QR


@pytest.mark.parametrize(
    ("text", "level"), [("DPG", "H"), ("67", "L"), ("harness 17 bytes!", "L"), ("00123", "q"), ("\u00e9t\u00e9", "M")]
)
def test_a_drawn_code_is_read_back(wide_model, chosen_training, text, level):
    task = make("qr", text=text, error_correction=level)
    assert task.picture.shape == (21, 21) and task.target_text == text
    values = decode("qr", wide_model(), chosen_training, task.picture, text=text, error_correction=level).values
    assert (values["readable"], values["text_exact"], values["pixel_accuracy"]) == (1.0, 1.0, 1.0)
    assert values["text_exact_located"] == 1.0


def test_dark_modules_are_minus_one():
    finder = make("qr").picture[:7, :7]
    assert finder[0].tolist() == [-1] * 7 and finder[1].tolist() == [-1, 1, 1, 1, 1, 1, -1] and finder[3, 3] == -1


def test_another_text_is_readable_but_not_exact(wide_model, chosen_training):
    values = decode("qr", wide_model(), chosen_training, make("qr", text="other").picture).values
    assert (values["readable"], values["text_exact"]) == (1.0, 0.0) and values["pixel_accuracy"] < 1


def test_a_reader_that_knows_the_corners_needs_no_finder_patterns(wide_model, chosen_training):
    signs = make("qr").picture.copy()
    signs[1, 1:6] = signs[1:6, 1] = -1  # the light ring of a finder pattern, half of it filled
    values = decode("qr", wide_model(), chosen_training, signs).values
    assert (values["text_exact"], values["text_exact_located"]) == (0.0, 1.0)


def test_noise_is_not_readable(wide_model, chosen_training):
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.int8), size=(21, 21))
    values = decode("qr", wide_model(), chosen_training, signs).values
    names = ("readable", "readable_raw", "text_exact", "text_exact_located")
    assert [values[name] for name in names] == [0.0, 0.0, 0.0, 0.0]


def test_a_pattern_that_is_no_code_is_never_exact(wide_model, chosen_training, tmp_path):
    np.save(tmp_path / "plain.npy", np.ones((21, 21)))
    path = str(tmp_path / "plain.npy")
    values = decode("qr", wide_model(), chosen_training, np.ones((21, 21)), pattern=path).values
    assert (values["pixel_accuracy"], values["readable"], values["text_exact"]) == (1.0, 0.0, 0.0)


# ---------------------------------------------------------------------------------------------------------------- files


def test_the_drawn_pictures_can_be_decoded_again(wide_model, chosen_training):
    task = make("qr")
    found = decode("qr", wide_model(), chosen_training, task.picture)
    assert set(found.arrays) == {"target", "delta"} and not found.files
    assert found.arrays["target"].dtype == np.int8 and np.array_equal(found.arrays["target"], task.picture)
    drawn = task.draw(found.arrays)
    assert list(drawn) == ["target", "decoded", "delta"]
    images = {
        name: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) for name, content in drawn.items()
    }
    assert images["decoded"].shape == (290, 290) and images["delta"].shape == (210, 210, 3)
    assert np.array_equal(images["decoded"], images["target"])
    assert _pattern.read_qr(images["decoded"]) == "DPG"


def test_delta_is_exact_and_drawn_in_colours(wide_model, chosen_training):
    signs = make("67").picture.astype(float)
    signs[0, 0] = 0.0
    arrays = decode("67", wide_model(), chosen_training, signs).arrays
    np.testing.assert_allclose(arrays["delta"], 1e-3 * signs, rtol=1e-9, atol=1e-15)
    drawn = make("67").draw(arrays)
    image = cv2.imdecode(np.frombuffer(drawn["delta"], np.uint8), cv2.IMREAD_COLOR)[5::10, 5::10].astype(int)
    assert image.shape == (6, 7, 3)
    blue, red = image[..., 0], image[..., 2]
    assert image[0, 0].tolist() == [255, 255, 255]
    assert (red > blue)[signs > 0].all() and (blue > red)[signs < 0].all()
    decoded = cv2.imdecode(np.frombuffer(drawn["decoded"], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded[5::10, 5::10][0].tolist() == [128, 255, 255, 255, 0, 0, 0]


# ------------------------------------------------------------------------------------------------ patterns from outside


def test_a_pattern_file_stands_in(tmp_path):
    signs = np.random.default_rng(1).choice([-1, 1], size=(4, 9))
    np.save(tmp_path / "p.npy", signs)
    cv2.imwrite(str(tmp_path / "p.png"), np.where(signs > 0, 200, 90).astype(np.uint8))
    for name in ("p.npy", "p.png"):
        assert np.array_equal(make("67", pattern=str(tmp_path / name)).picture, signs)


def broken(folder, kind: str):
    path = folder / ("p.npy" if kind != "image" else "p.png")
    if kind == "garbage" or kind == "image":
        path.write_bytes(b"not what it says")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, a=np.ones((2, 2)))
    elif kind != "missing":
        np.save(
            path,
            {
                "zeros": np.zeros((3, 3)),
                "flat": np.ones(3),
                "nothing": np.ones((0, 3)),
                "nan": np.full((2, 2), np.nan),
                "words": np.array([["a"]]),
            }[kind],
        )
    return path


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("missing", "is not a file"),
        ("garbage", "not a plain .npy"),
        ("empty", "not a plain .npy"),
        ("pickle", "not a plain .npy"),
        ("image", "not an image"),
        ("archive", "two-dimensional"),
        ("zeros", "two-dimensional"),
        ("flat", "two-dimensional"),
        ("nothing", "two-dimensional"),
        ("nan", "two-dimensional"),
        ("words", "two-dimensional"),
    ],
)
def test_a_bad_pattern_is_one_clear_sentence(tmp_path, kind, why):
    with pytest.raises(HarnessError, match=why):
        make("67", pattern=str(broken(tmp_path, kind)))


def test_an_empty_image_file_is_refused(tmp_path):
    (tmp_path / "p.png").write_bytes(b"")
    with pytest.raises(HarnessError, match="not an image"):
        make("qr", pattern=str(tmp_path / "p.png"))


@pytest.mark.parametrize("shape", [(25, 3), (3, 41)])
def test_a_picture_larger_than_the_head_is_refused(wide_model, chosen_training, tmp_path, shape):
    np.save(tmp_path / "p.npy", np.ones(shape))
    task = make("67", pattern=str(tmp_path / "p.npy"))
    for use in (
        lambda: task.metric(chosen_training(wide_model())),
        lambda: task.evaluate(ROLLOUTS, chosen_training(wide_model())),
    ):
        with pytest.raises(HarnessError, match="24 hidden dimensions and 40 token ids"):
            use()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"text": "eight ch"}, "too long for a version-1"),
        ({"text": ""}, "is empty"),
        ({"text": 67}, "must be a text"),
        ({"text": "\x00\x01"}, "does not read"),
        ({"error_correction": "Z"}, "L, M, Q or H"),
        ({"lambda": 0}, "positive"),
        ({"lambda": float("nan")}, "at most"),
        ({"lambda": "much"}, "a number"),
    ],
)
def test_a_bad_option_is_one_clear_sentence(options, why):
    with pytest.raises(HarnessError, match=why):
        make("qr", **options)
