"""Chunk codec: an array with named signal axes to bytes and back, within an error bound that was checked.

promise     the bound, the field that writer and reader both know, and errors measured against them
chunk       the layout of a chunk's bytes: sections, side streams, checksum (docs/format.md)
prior       a model evaluated on a field's grid, as writer and reader both do
decode      bytes to values; imports nothing below this line
trial       a chunk coded under one prior and one plan
latents     the priors that a model offers for a chunk
search      which prior and which plan take the fewest bytes, and bounds that meet a PSNR or a rate
encode      the recipe: values to bytes, decoded again before they are handed out
"""
