"""Batches: a table of clips in, a folder of results out, on as many ComfyUI servers as Ray has cards or processors."""
