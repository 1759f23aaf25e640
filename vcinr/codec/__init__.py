"""The codec of one chunk: it turns an array into bytes and back, within an error bound that has been checked.

promise     the error bound, what writer and reader both know of a field, and how errors are measured
chunk       the layout of a chunk's bytes: sections, side streams and checksum (docs/format.md)
prior       evaluates a model at the samples of a field, as writer and reader both do
decode      turns bytes into values; it imports none of the modules listed after it
at          decodes values between the samples of a grid
trial       codes a chunk under one prior and one residual plan
latents     makes the priors that a model offers for a chunk
search      finds the prior and the plan that need the fewest bytes, and the bound that meets a PSNR or a rate
encode      turns values into bytes, and decodes them again before it returns them
"""
