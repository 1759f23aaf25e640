"""Patches in context: a signal is cut into patches, each predicted from the patches before it and coded by an expert.

An expert is a linear prediction of a patch from the values around it, and an orthonormal basis for what the prediction
leaves. Which expert a patch has is VC-INR's gating as a discrete choice; its latents are found in closed form.
"""
