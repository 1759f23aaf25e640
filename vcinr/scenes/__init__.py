"""Scenes: posed views of an object become a radiance field, which volume rendering turns into views at any pose.

The field is a small grid of levels (how deep below the surface a vertex is) with a coarser grid of colours
(:mod:`vcinr.scenes.field`). Its latents are found by gradient steps through the renderer and through the decoder of
patches, with learned step sizes (:mod:`vcinr.scenes.fit`), and they are coded as a volume by experts for patches.
"""
