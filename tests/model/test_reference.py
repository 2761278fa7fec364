"""ReferenceNet against the official bank of tokens."""

import pytest
import torch
from golden import relative

from champ.model.checkpoint import read_state, shapes_of
from champ.model.config import UNetSizes
from champ.model.loading import load_reference_net
from champ.model.reference import encode_reference
from champ.model.span import Span
from champ.progress import listening


def official_bank(family) -> dict:
    """The official tokens (2 = [zeros, CLIP], tokens, channels) by ComfyUI's place of the block."""
    sizes = UNetSizes.read(shapes_of(read_state(family.files.reference_unet)))
    bank = {}
    for key, value in family.data("reference").items():
        if key.startswith("bank/"):
            block, _, rest = key.removeprefix("bank/").partition(".attentions.")
            bank[sizes.place(block, int(rest.split(".")[0]))] = value
    return bank


def latents(family) -> torch.Tensor:
    return family.data("reference")["ref_latents"] / 0.18215


def test_all_tokens_with_and_without_clip(family):
    bank = official_bank(family)
    assert len(bank) == 16
    for row, embeds in enumerate((None, family.clip_embeds)):
        (found,) = encode_reference(family.net, latents(family), embeds)
        assert found.tokens.keys() == bank.keys()
        assert max(relative(found.tokens[place][0], bank[place][row]) for place in bank) < 1e-5


def test_several_pictures(champ):
    pictures = torch.cat([latents(champ), torch.randn(1, 4, 8, 12)])
    heard = []
    with listening(lambda *count: heard.append(count)):
        both = encode_reference(champ.net, pictures, champ.clip_embeds, strength=0.5, span=Span(end=0.8))
    assert heard == [(1, 2), (2, 2)] and len(both) == 2
    assert all(torch.equal(both[0].tokens[place], tokens) for place, tokens in champ.references[0].tokens.items())
    assert {(r.strength, *r.span, r.family) for r in both} == {(0.5, 0.0, 0.8, "Champ")}


def test_storage_type_and_another_size(champ):
    (found,) = encode_reference(champ.net, torch.randn(1, 4, 9, 7), dtype=torch.float16)
    assert {tokens.dtype for tokens in found.tokens.values()} == {torch.float16}
    assert found.tokens["input", 1].shape == (1, 63, 32) and found.tokens["middle", 0].shape == (1, 2, 128)


@pytest.mark.parametrize("weight_dtype", ["default", "fp8_e4m3fn"])
def test_low_vram_and_fp8_storage(champ, weight_dtype):
    """Weights that are moved or cast only when they are used give the same tokens."""
    net = load_reference_net(champ.files, weight_dtype)
    wanted = load_reference_net(champ.files)
    wanted.patcher.model.load_state_dict({k: v.float() for k, v in net.patcher.model.state_dict().items()})
    net.patcher.load(torch.device("cpu"), lowvram_model_memory=100_000)
    context = champ.clip_embeds[:, None]
    with torch.no_grad():
        found, full = (n.patcher.model.tokens(latents(champ), context) for n in (net, wanted))
    assert net.dtype == torch.float32
    assert max(relative(found[place], full[place]) for place in full) < 1e-6


def test_bad_input(champ):
    with pytest.raises(ValueError, match=r"latents have shape \(1, 16, 8, 8\).*VAE of Stable Diffusion 1.5"):
        encode_reference(champ.net, torch.zeros(1, 16, 8, 8))
    with pytest.raises(ValueError, match="no reference image in the latents"):
        encode_reference(champ.net, torch.zeros(0, 4, 8, 8))
    with pytest.raises(
        ValueError, match="embedding has 1280 values but ReferenceNet reads 64; use the CLIP vision model"
    ):
        encode_reference(champ.net, torch.zeros(1, 4, 8, 8), torch.zeros(1, 1280))
    with pytest.raises(ValueError, match="2 CLIP vision embeddings for 3 reference images"):
        encode_reference(champ.net, torch.zeros(3, 4, 8, 8), torch.zeros(2, 64))


def test_the_network_leaves_the_memory_and_others_stay(champ):
    import comfy.model_management

    comfy.model_management.load_models_gpu([champ.model])
    encode_reference(champ.net, latents(champ))
    loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
    assert champ.net.patcher not in loaded and champ.model in loaded


def test_a_range_that_is_none_is_refused(champ):
    with pytest.raises(ValueError, match="start 0.8 and end 0.2, which is not a part of the sampling"):
        encode_reference(champ.net, latents(champ), span=Span(0.8, 0.2))
