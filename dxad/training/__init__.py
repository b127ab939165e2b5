"""Learning what is normal from rows, with numpy alone, into a TensorFlow Lite bundle.

    rows ─▶ linear: fit, trim, fit again ─▶ calibrate on a later slice ─▶ graph: .tflite ─▶ bundle, verified

`python -m dxad.training` does it in a process of its own, so that the daemon's loop and memory never feel
it; `learn` is the same in process.
"""

from dxad.training.learn import Recording, learn

__all__ = ["Recording", "learn"]
