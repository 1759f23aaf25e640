"""Side-by-side runs of vcinr against the codecs scientists use today; needs the extra ``vcinr[bench]``."""
