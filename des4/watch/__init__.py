"""Watching a training: the view on a terminal, and what feeds TensorBoard, W&B and MLflow. All of it is callbacks."""
