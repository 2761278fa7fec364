"""Controllable human image animation: bodies, motions, guidance maps. Usable without ComfyUI."""
