"""Other programs' logs of a run: TensorBoard, Weights & Biases, MLflow. Each is written by a process of its own.

`serve` is that process; a logger's library is imported there alone. Nothing here knows torch, so it starts quickly.
"""
