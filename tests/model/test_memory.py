"""Models leave the graphics memory however their work ends, and the next run is as if nothing had happened."""

import comfy.model_management
import pytest
import torch
from golden import HEIGHT, WIDTH

from champ.model.guidance import GuidanceMap, encode_guidance
from champ.model.memory import loaded
from champ.model.reference import encode_reference
from champ.model.span import Span
from champ.progress import listening

OOM = comfy.model_management.OOM_EXCEPTION


def in_memory(patcher) -> bool:
    return any(entry.model is patcher for entry in comfy.model_management.current_loaded_models)


def stop_at(count: int, error: type[BaseException]):
    def listener(done, _):
        if done == count:
            raise error("stopped")

    return listener


STOPS = [comfy.model_management.InterruptProcessingException, OOM, KeyboardInterrupt]


def guidance(family, listener=lambda done, total: None) -> dict:
    images = torch.rand(3, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    maps = {"depth": GuidanceMap(images), "normal": GuidanceMap(images, span=Span(end=0.5))}
    with listening(listener):
        made = encode_guidance(family.encoders, maps, WIDTH, HEIGHT, chunk=1)
    return {layer.span: layer.features for layer in made.layers}


def tokens(family, listener=lambda done, total: None) -> dict:
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with listening(listener):
        made = encode_reference(family.net, latents)
    return {(i, place): x for i, reference in enumerate(made) for place, x in reference.tokens.items()}


@pytest.mark.parametrize("error", STOPS)
@pytest.mark.parametrize("encode, part", [(guidance, "encoders"), (tokens, "net")])
def test_stopped_and_done_again(champ, encode, part, error):
    patcher = getattr(champ, part).patcher
    wanted = encode(champ)
    assert not in_memory(patcher)
    with pytest.raises(error):
        encode(champ, stop_at(1, error))
    assert not in_memory(patcher)
    found = encode(champ)
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_out_of_memory_while_it_is_loaded(champ, monkeypatch):
    patcher = champ.net.patcher

    def load(*_, **__):
        raise OOM("not enough")

    with loaded(champ.encoders.patcher):
        monkeypatch.setattr(patcher, "patch_model", load)
        monkeypatch.setattr(patcher, "partially_load", load)
        with pytest.raises(OOM), loaded(patcher):
            raise AssertionError("it is not there")
        assert not in_memory(patcher) and in_memory(champ.encoders.patcher)
    assert not in_memory(champ.encoders.patcher)
