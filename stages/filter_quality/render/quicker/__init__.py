"""The parts of Manim that cost most of a scene, done for less: each one gives what Manim's own gives, to the bit.

What Manim does otherwise than in the release that this was compared with is not touched, nor is a mobject whose class
has a method of its own in the place of one that is used here. LINEMILL_PLAIN_MANIM=1 in the environment leaves all of
Manim as it is.

No module imports these: they import Manim, so the server of the render gate runs them, where it is loaded.
"""
