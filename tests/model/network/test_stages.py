"""Training outputs: what is trained, and that gradients reach all of it and nothing else."""

import functools

import pytest
import torch

from model import VARIANTS, EBSeg, StagePredictions, TrainingClasses
from model.network.build import build
from tests.golden.weights import picture

TRAINED_PARTS = ("background", "fusion.", "pixel_decoder.", "transformer_decoder.")
TRAINED_TABLES = ("backbone.pos_embed", "clip_image.positional_embedding")


@functools.cache
def without_memory(variant: str) -> EBSeg:
    return build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=None)


def trained(ebseg: EBSeg) -> dict[str, int]:
    """Names and sizes."""
    return {name: p.numel() for name, p in ebseg.named_parameters() if p.requires_grad}


def loss(ebseg: EBSeg, stages: list[StagePredictions], text: torch.Tensor) -> torch.Tensor:
    """Something that every output of every stage has a part in."""
    classifier = ebseg.classifier(text)
    total = torch.zeros([])
    generator = torch.Generator().manual_seed(0)
    for stage in stages:
        direction = torch.randn(stage.mask_logits.shape, generator=generator)
        total = total + (stage.mask_logits * direction).mean()
        for embeddings in (stage.supervised, stage.mask_attention):
            total = total - (embeddings @ classifier.T).log_softmax(-1)[..., ::2].mean()
    return total


# --- what is trained


def test_base_trains_324_tensors() -> None:
    sizes = trained(without_memory("base"))
    assert len(sizes) == 324
    assert sum(sizes.values()) == 26_622_403


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_all_after_the_encoders_is_trained_and_of_them_the_position_tables(variant: str) -> None:
    ebseg = without_memory(variant)
    for name, parameter in ebseg.named_parameters():
        wanted = name.startswith(TRAINED_PARTS) or name in TRAINED_TABLES
        assert parameter.requires_grad == wanted, name
    assert not any(buffer.requires_grad for buffer in ebseg.buffers())


def test_tiny_is_tiny(tiny: EBSeg) -> None:
    """A few million parameters beside the text table."""
    table = tiny.clip_text.token_embedding.weight.numel()
    total = sum(parameter.numel() for parameter in tiny.parameters())
    assert 1e6 < total - table < 6e6


# --- gradients


@pytest.mark.parametrize(("model", "all_felt"), [("uneven", True), ("tiny", False)])
def test_gradients_reach_everything_trained(
    model: str, all_felt: bool, request: pytest.FixtureRequest
) -> None:
    """In a new model some weights are zero, and so are the gradients of what only they read."""
    ebseg: EBSeg = request.getfixturevalue(model)
    ebseg.train()
    try:
        stages = ebseg.stages(torch.stack([picture(64, 96, 0.0), picture(64, 96, 1.0)]))
        loss(ebseg, stages, ebseg.encode_text(["sky", "tree", "road", "cat"])).backward()
        gradients = {name: p.grad for name, p in ebseg.named_parameters() if p.grad is not None}
    finally:
        ebseg.eval()
        ebseg.zero_grad(set_to_none=True)
    assert gradients.keys() == trained(ebseg).keys()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0 or not all_felt, name


def test_stages_are_those_of_the_decoder(tiny: EBSeg) -> None:
    """The queries before and after every layer."""
    stages = tiny.stages(picture(64, 96, 0.0)[None])
    config = tiny.config
    queries = config.transformer_decoder.queries
    assert len(stages) == config.transformer_decoder.layers + 1 == 5
    for stage in stages:
        assert stage.mask_logits.shape == (1, queries, 16, 24)
        assert stage.supervised.shape == (1, queries, config.clip.joint_width)
        assert stage.mask_attention.shape == stage.supervised.shape
        assert stage.mask_logits.requires_grad
        lengths = stage.mask_attention.norm(dim=-1)
        assert (lengths - 1).abs().max() <= 1e-5


def test_training_mode_changes_no_output(tiny: EBSeg) -> None:
    """Nothing drops out, and no statistics are kept."""
    image = picture(64, 64, 0.0)[None]
    with torch.no_grad():
        wanted = tiny.stages(image)[-1]
        tiny.train()
        try:
            found = tiny.stages(image)[-1]
        finally:
            tiny.eval()
    assert torch.equal(found.supervised, wanted.supervised)
    assert torch.equal(found.mask_logits, wanted.mask_logits)


def test_the_scale_of_supervised_embeddings_is_learned_up_to_ten(uneven: EBSeg) -> None:
    image, scale = picture(64, 64, 0.0)[None], uneven.transformer_decoder.embedding_scale
    before = scale.item()
    try:
        for value, wanted in ((3.0, 3.0), (9.5, 9.5), (50.0, 10.0)):
            with torch.no_grad():
                scale.fill_(value)
            lengths = uneven.predict(image).supervised.norm(dim=-1)
            assert (lengths - wanted).abs().max() <= 1e-4
    finally:
        with torch.no_grad():
            scale.fill_(before)


def test_predict_leaves_no_graph(tiny: EBSeg) -> None:
    predictions = tiny.predict(picture(64, 64, 0.0)[None])
    assert not predictions.supervised.requires_grad
    assert not predictions.mask_logits.requires_grad


# --- the classifier


def test_classifier_rows(tiny: EBSeg) -> None:
    text = tiny.encode_text(["sky", "tree"])
    rows = tiny.classifier(text)
    assert rows.shape == (3, tiny.config.clip.joint_width)
    assert (rows[:2] - 100 * text).abs().max() <= 1e-3
    assert rows[2].norm().item() == pytest.approx(100, rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(rows[2:], tiny.background)
    assert cosine.item() == pytest.approx(1, abs=1e-6)


def test_only_the_background_row_is_trained(tiny: EBSeg) -> None:
    rows = tiny.classifier(tiny.encode_text(["sky"]))
    of_text, of_background = (
        torch.autograd.grad(row.sum(), tiny.background, retain_graph=True)[0] for row in rows
    )
    assert of_text.abs().max() == 0
    assert of_background.abs().max() > 0


# --- seeds


def test_seed_makes_the_weights(tiny: EBSeg) -> None:
    again = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0).state_dict()
    other = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=1).state_dict()
    state = tiny.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.items())
    assert any(not torch.equal(state[name], tensor) for name, tensor in other.items())
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_building_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_deformable_attention_starts_with_a_star(tiny: EBSeg) -> None:
    """Each head looks in its own direction, each point one pixel further, all with the same weight."""
    own = tiny.pixel_decoder.layers[0].get_submodule("attention")
    assert own.get_parameter("attention_weights.weight").abs().max() == 0
    config = tiny.config.pixel_decoder
    offsets = own.get_parameter("sampling_offsets.bias").view(config.heads, 3, config.points, 2)
    reach = offsets.abs().amax(-1)
    for point in range(config.points):
        assert (reach[:, :, point] - (point + 1)).abs().max() <= 1e-5
    assert (offsets[:, 0] == offsets[:, 1]).all()
    assert len({tuple(round(v, 3) for v in head[0, 0].tolist()) for head in offsets}) == config.heads
