"""What is minimised: pretraining, layer-wise transfer, distillation; one train loop takes any."""
