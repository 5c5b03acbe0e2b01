"""Images as numbers: arrays that a program holds, and those in .npy and .npz files."""
